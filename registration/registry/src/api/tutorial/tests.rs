//! What the original's struct would hold after `json.NewDecoder(r.Body).Decode(&b)`.

use super::*;

fn read(body: &str) -> Option<(String, String, Vec<String>)> {
    Words::read(body.as_bytes()).ok().map(|words| (words.name, words.address, words.tags))
}

fn some(name: &str, address: &str, tags: &[&str]) -> Option<(String, String, Vec<String>)> {
    Some((name.into(), address.into(), tags.iter().map(|&tag| tag.into()).collect()))
}

#[test]
fn json_is_read_as_go_reads_it() {
    for (body, expected) in [
        // What the original's client sends, with the newline of Go's encoder.
        ("{\"Name\":\"n\",\"Address\":\"10.0.0.1:4000\",\"Tags\":null}\n", some("n", "10.0.0.1:4000", &[])),
        (r#"{"name":"a","ADDRESS":"b","x":{"y":[1]}}"#, some("a", "b", &[])),
        (r#"{"Name":"a","name":"b"}"#, some("b", "", &[])),
        (r#"{"Name":"a","Name":null}"#, some("a", "", &[])),
        (r#"{"Tags":["x",null,"y"]}"#, some("", "", &["x", "", "y"])),
        (r#"{"Name":"a"} trailing"#, some("a", "", &[])),
        (r#"{"Name":"a"}{"Name":"b"}"#, some("a", "", &[])),
        ("null", some("", "", &[])),
        ("{}", some("", "", &[])),
        ("", None),
        ("{", None),
        ("[]", None),
        ("\"Name\"", None),
        ("7", None),
        (r#"{"Name":1}"#, None),
        (r#"{"Tags":"x"}"#, None),
        (r#"{"Tags":[1]}"#, None),
    ] {
        assert_eq!(read(body), expected, "{body}");
    }
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_not_refused() {
    assert_eq!(Words::read(b"{\"Name\":\"a\xff\"}").unwrap().name, "a\u{fffd}");
}

#[test]
fn what_can_never_be_probed_is_refused_with_a_reason() {
    let words =
        |name: &str, address: &str| Words { name: name.into(), address: address.into(), tags: Vec::new() };
    for (name, address, reason) in [
        ("", "127.0.0.1:1", "Name: a name is empty"),
        ("A", "127.0.0.1:1", "Name: the name \"A\" is no DNS label"),
        ("a", "", "Address: \"\" is no address"),
        ("a", "localhost:80", "Address: \"localhost:80\" is no address"),
        ("a", ":80", "Address: \":80\" is no address"),
        ("a", "127.0.0.1:0", "Address: port 0 is not a port"),
    ] {
        let error = registration(words(name, address)).unwrap_err();
        assert!(error.to_string().starts_with(reason), "{error}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}
