use super::*;

const LIST: &str = r#"{
  "name": "mynet",   "cniVersion": "1.0.0",
  "plugins": [
    { "type": "bridge", "unknown": [1.0, {"plugins": []}] },
    {
      "type": "tuning"
    }
  ]
}
"#;

const ENTRY: &str = r#"{"type": "portolan", "capabilities": {"portMappings": true}}"#;

fn chained(text: &str) -> (String, Option<String>) {
    match chain(text, ENTRY, false).unwrap() {
        Chained::Changed { text, replaced } => (text, replaced),
        Chained::Already => panic!("it was there already"),
    }
}

fn kinds(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap();
    let kinds = value["plugins"].as_array().unwrap().iter();
    kinds.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_entry_is_added_at_the_end_and_nothing_else_changes() {
    let (text, replaced) = chained(LIST);
    assert_eq!(replaced, None);
    let expected = LIST.replace("\"tuning\"\n    }", &format!("\"tuning\"\n    }},\n    {}", ENTRY));
    assert_eq!(text, expected);
    assert_eq!(chain(&text, ENTRY, false).unwrap(), Chained::Already);
    assert_eq!(unchain(&text, None).unwrap(), LIST);
}

#[test]
fn a_list_on_one_line_stays_on_one_line() {
    let list = r#"{"name":"a","plugins":[{"type":"bridge"}]}"#;
    let (text, _) = chained(list);
    assert_eq!(text, format!(r#"{{"name":"a","plugins":[{{"type":"bridge"}}, {}]}}"#, ENTRY));
    assert_eq!(unchain(&text, None).unwrap(), list);
}

#[test]
fn it_takes_the_place_of_portmap_and_gives_it_back() {
    let portmap = r#"{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}"#;
    let list = LIST
        .replace("{\n      \"type\": \"tuning\"\n    }", &format!("{portmap},\n{{\"type\":\"firewall\"}}"));
    let (text, replaced) = chained(&list);
    assert_eq!(replaced.as_deref(), Some(portmap));
    assert_eq!(kinds(&text), ["bridge", "portolan", "firewall"]);
    assert_eq!(unchain(&text, replaced.as_deref()).unwrap(), list);

    let Chained::Changed { text, replaced: None } = chain(&list, ENTRY, true).unwrap() else { panic!() };
    assert_eq!(kinds(&text), ["bridge", "portmap", "firewall", "portolan"]);
}

#[test]
fn portmap_that_came_back_beside_ours_goes_again() {
    let list = r#"{"plugins":[{"type":"a"},{"type":"portolan"},{"type":"portmap"}]}"#;
    let (text, replaced) = chained(list);
    assert_eq!(kinds(&text), ["a", "portolan"]);
    assert!(text.contains("portMappings") && replaced.is_some());
}

#[test]
fn portmap_with_options_that_we_refuse_is_not_replaced_silently() {
    for (option, key) in
        [(r#""conditionsV4": ["-d", "192.0.2.1"]"#, "conditionsV4"), (r#""masqAll": true"#, "masqAll")]
    {
        let list = format!(r#"{{"plugins":[{{"type":"bridge"}},{{"type":"portmap",{option}}}]}}"#);
        let error = chain(&list, ENTRY, false).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("--keep-portmap"), "{error}");
        chain(&list, ENTRY, true).unwrap();
    }
    chained(r#"{"plugins":[{"type":"portmap","conditionsV4":[],"masqAll":false}]}"#);
}

#[test]
fn an_older_entry_is_brought_up_to_date() {
    let (text, _) = chained(LIST);
    let newer = r#"{"type": "portolan", "agentSocket": "/a"}"#;
    let Chained::Changed { text, replaced: None } = chain(&text, newer, false).unwrap() else { panic!() };
    assert_eq!(kinds(&text), ["bridge", "tuning", "portolan"]);
    assert!(text.contains("/a") && !text.contains("portMappings"));
}

#[test]
fn a_single_plugin_becomes_a_list() {
    let conf =
        "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"mynet\",\n  \"type\": \"bridge\",\n  \"x\": 1.0\n}\n";
    let (text, _) = chained(conf);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["cniVersion"], "0.3.1");
    assert_eq!(value["name"], "mynet");
    assert_eq!(value["plugins"][0], serde_json::from_str::<Value>(conf).unwrap());
    assert_eq!(value["plugins"][1]["capabilities"]["portMappings"], true);
}

#[test]
fn what_is_no_configuration_is_left_alone() {
    for text in ["", "[]", "{}", r#"{"plugins": []}"#, r#"{"plugins": 7}"#, "nonsense"] {
        assert!(chain(text, ENTRY, false).is_err(), "{text}");
        assert_eq!(unchain(text, None), None);
    }
    assert_eq!(unchain(r#"{"plugins":[{"type":"portolan"}]}"#, None), None);
}
