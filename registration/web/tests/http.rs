//! The page's answers over HTTP, without a browser.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use axum::{Router, body::Body, response::Response};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use portolan_model::{InstanceKey, Name, Registration};
use portolan_registry::{Caller, Registry, RegistryConfig};
use portolan_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

async fn registry() -> (Registry, Router) {
    let registry = Registry::start(RegistryConfig::default(), Box::new(MemoryStore::new())).await.unwrap();
    let router = portolan_web::router(registry.clone()).fallback(portolan_web::not_found);
    (registry, router)
}

async fn register(registry: &Registry, body: Value) -> InstanceKey {
    let registration: Registration = serde_json::from_value(body).unwrap();
    let name = registration.name.clone();
    let registered = registry.register(registration, Caller::Process).await.unwrap();
    InstanceKey { name, incarnation: registered.incarnation }
}

async fn get(router: &Router, path: &str) -> Response {
    router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(router: &Router, path: &str) -> (StatusCode, String) {
    let response = get(router, path).await;
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn web(i: usize) -> Value {
    json!({
        "name": format!("web-{i}"), "service": "web", "node": "rack-a", "addresses": ["192.0.2.7"],
        "ports": [{ "name": "http", "port": (20000 + i).to_string(), "container": 8080 }],
    })
}

#[tokio::test]
async fn the_page_works_without_scripts() {
    let (registry, router) = registry().await;
    for i in [1, 2, 10] {
        register(&registry, web(i)).await;
    }
    register(&registry, json!({ "name": "other", "addresses": ["192.0.2.8"], "ports": [] })).await;
    let (status, page) = text(&router, "/").await;
    assert_eq!(status, StatusCode::OK);
    for expected in [
        "192.0.2.7:20001",
        "href=\"http://192.0.2.7:20001/\"",
        "8080",
        "<a href=\"/instances/web-1\">web-1</a>",
        "4 instances",
        "<b>4</b> passing",
    ] {
        assert!(page.contains(expected), "{expected}:\n{page}");
    }
    let at = |name: &str| page.find(&format!("/instances/{name}\"")).unwrap();
    assert!(at("web-2") < at("web-10"), "in the order in which people count");

    let (_, some) = text(&router, "/?q=:20002&service=web").await;
    assert!(
        some.contains("1 of 4 instances") && some.contains("web-2") && !some.contains("/instances/web-1\"")
    );
    assert!(some.contains("href=\"/?q=%3A20002&#38;service=web&#38;state=critical\""), "{some}");
    assert!(some.contains("value=\":20002\"") && some.contains("<option selected>web</option>"), "{some}");
    let (_, none) = text(&router, "/?state=critical").await;
    assert!(none.contains("Nothing matches") && none.contains("0 of 4 instances"));
}

#[tokio::test]
async fn an_empty_registry_says_what_to_do() {
    let (_registry, router) = registry().await;
    let (status, page) = text(&router, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("No instance is registered yet") && page.contains("portolan run -p http"));
}

#[tokio::test]
async fn every_answer_has_the_policy_and_nothing_is_from_elsewhere() {
    let (registry, router) = registry().await;
    register(&registry, web(1)).await;
    for path in ["/", "/instances/web-1", "/instances/nobody", "/nowhere", "/assets/portolan.js", "/live"] {
        let response = get(&router, path).await;
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
    }
    for path in ["/", "/instances/web-1", "/nowhere"] {
        let (_, page) = text(&router, path).await;
        let outside = page.match_indices("//").filter(|(at, _)| !page[..*at].ends_with("192.0.2.7")).count();
        let links = page.matches("http://192.0.2.7").count();
        assert_eq!(outside, links + usize::from(page.contains("</script>//")), "{path}: {page}");
        assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains("onclick"), "{path}");
    }
    // Assets may be kept, because their addresses change with them.
    let (_, page) = text(&router, "/").await;
    let style = page.split("href=\"").find(|part| part.starts_with("/assets/portolan.css?v=")).unwrap();
    let response = get(&router, style.split('"').next().unwrap()).await;
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
}

#[tokio::test]
async fn what_instances_say_is_never_markup() {
    let (registry, router) = registry().await;
    let evil = "<script>alert(1)</script>\"'&";
    let body = json!({
        "name": "evil", "node": "n", "addresses": ["192.0.2.9"], "labels": { "x": evil }, "tags": [evil],
    });
    register(&registry, body).await;
    for path in
        ["/", "/instances/evil", "/instances/%3Cscript%3E", "/?q=%3Cscript%3Ealert(1)&label=%22onload=x"]
    {
        let (_, page) = text(&router, path).await;
        assert!(!page.contains("<script>") && !page.contains("\"onload"), "{path}: {page}");
    }
    let (_, page) = text(&router, "/instances/evil").await;
    assert!(page.contains("x=&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;"), "{page}");
}

#[tokio::test]
async fn an_instance_has_a_page_with_its_history() {
    let (registry, router) = registry().await;
    let (status, page) = text(&router, "/instances/web-1").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("No instance has this name"));

    let key = register(&registry, web(1)).await;
    let (status, page) = text(&router, "/instances/web-1").await;
    assert_eq!(status, StatusCode::OK);
    for expected in ["data-copy=\"192.0.2.7:20001\"", key.incarnation.as_str(), "href=\"/?service=web\""] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    registry.deregister(&key.name, None).await.unwrap();
    let wait = async {
        loop {
            let (status, page) = text(&router, "/instances/web-1").await;
            if page.contains("left the catalog</li>") || page.contains("left the catalog <") {
                return (status, page);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (status, page) = tokio::time::timeout(PATIENCE, wait).await.expect("the history has the removal");
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("This instance has left the catalog") && page.contains("registered"), "{page}");
}

#[tokio::test]
async fn there_is_a_page_for_addresses_that_are_nobodys() {
    let (_registry, router) = registry().await;
    let (status, page) = text(&router, "/instances").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("There is no such page"));
}

/// Reads events of a stream, one after the other.
struct Events {
    body: Body,
    read: String,
}

impl Events {
    async fn open(router: &Router, path: &str) -> Self {
        let response = get(router, path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), read: String::new() }
    }

    /// The next event's kind, id and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        while !self.read.contains("\n\n") {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.read += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
        }
        let (event, rest) = self.read.split_once("\n\n").unwrap();
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let found = (field("event"), field("id"), serde_json::from_str(&field("data")).unwrap());
        self.read = rest.to_owned();
        Some(found)
    }

    /// Reads up to `ready`: the rows, and the mark of the index at which they were true.
    async fn all(&mut self) -> (Vec<Value>, String) {
        let (kind, _, begin) = self.next().await.unwrap();
        assert_eq!(kind, "begin");
        let mut rows = Vec::new();
        loop {
            let (kind, id, data) = self.next().await.unwrap();
            match kind.as_str() {
                "rows" => rows.extend(data.as_array().unwrap().iter().cloned()),
                "ready" => {
                    assert_eq!(begin["count"], rows.len());
                    assert_eq!(id, format!("{}-{}", begin["life"].as_str().unwrap(), data["index"]));
                    return (rows, id);
                }
                other => panic!("{other}"),
            }
        }
    }
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_stream_has_all_rows_and_then_what_changes() {
    let (registry, router) = registry().await;
    for i in 0..600 {
        register(&registry, web(i)).await;
    }
    let mut events = Events::open(&router, "/live").await;
    let (rows, mark) = events.all().await;
    let index = |mark: &str| mark.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(rows.len(), 600);
    assert_eq!(rows[0]["ports"][0]["at"], json!(["192.0.2.7:20000"]));

    let late = register(&registry, json!({ "name": "late", "addresses": ["192.0.2.8"] })).await;
    let (kind, id, patch) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), names(&patch["set"])), ("patch", vec!["late"]));
    assert!(patch["index"].as_u64().unwrap() > index(&mark) && index(&id) == patch["index"]);

    // Came and went between two looks: the last word counts.
    registry.deregister(&late.name, None).await.unwrap();
    let gone: Name = "web-3".parse().unwrap();
    registry.deregister(&gone, None).await.unwrap();
    let mut all_gone = Vec::new();
    while all_gone.len() < 2 {
        let (_, _, patch) = events.next().await.unwrap();
        assert!(names(&patch["set"]).is_empty());
        all_gone
            .extend(patch["gone"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
    }
    all_gone.sort();
    assert_eq!(all_gone, ["late", "web-3"]);
}

#[tokio::test]
async fn who_comes_back_gets_only_what_was_missed() {
    let (registry, router) = registry().await;
    register(&registry, web(1)).await;
    let mut events = Events::open(&router, "/live").await;
    let (_, mark) = events.all().await;
    drop(events);
    register(&registry, web(2)).await;
    let mut again = Events::open(&router, &format!("/live?since={mark}")).await;
    let (kind, _, patch) = again.next().await.unwrap();
    assert_eq!((kind.as_str(), names(&patch["set"])), ("patch", vec!["web-2"]));
    // An index of another life, or that this catalog never had, or none at all: everything anew.
    let (life, index) = mark.split_once('-').unwrap();
    for mark in [format!("0-{index}"), format!("{life}-18446744073709551615"), "x".to_owned(), String::new()]
    {
        let mut lost = Events::open(&router, &format!("/live?since={mark}")).await;
        assert_eq!(lost.all().await.0.len(), 2, "{mark}");
    }
}

#[tokio::test]
async fn the_stream_of_one_instance_has_no_other() {
    let (registry, router) = registry().await;
    register(&registry, web(1)).await;
    register(&registry, web(2)).await;
    let mut events = Events::open(&router, "/live?name=web-2").await;
    assert_eq!(events.all().await.0.len(), 1);
    registry.deregister(&"web-1".parse().unwrap(), None).await.unwrap();
    registry.deregister(&"web-2".parse().unwrap(), None).await.unwrap();
    let (_, _, patch) = events.next().await.unwrap();
    assert_eq!(patch["gone"], json!(["web-2"]));
}

#[tokio::test]
async fn streams_end_with_the_registry_and_are_limited() {
    let (registry, router) = registry().await;
    let mut open = Vec::new();
    let refused = loop {
        let response = get(&router, "/live").await;
        if response.status() != StatusCode::OK {
            break response;
        }
        open.push(response);
        assert!(open.len() < 10_000, "no limit");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    // A page that is closed makes room.
    let _ = open.pop();
    let mut events = Events::open(&router, "/live").await;
    events.all().await;
    registry.shutdown().await;
    assert!(events.next().await.is_none());
}
