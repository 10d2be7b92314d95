//! The page in a real Chromium, with a registry behind it.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use portolan_model::{Name, Registration};
use portolan_registry::{Caller, Registry, RegistryConfig};
use portolan_store::MemoryStore;
use portolan_testkit::{browser::Browser, eventually, need_root, net::Namespace};
use serde_json::{Value, json};

/// How long a change may take to be seen on a busy machine. Its usual time is some milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// A registry and its page inside a namespace, on a runtime of its own.
struct Site {
    runtime: Option<tokio::runtime::Runtime>,
    registry: Registry,
    address: SocketAddr,
}

impl Site {
    fn start(namespace: &Namespace) -> Self {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        Self::on(listener)
    }

    fn on(listener: TcpListener) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let registry = runtime.block_on(async {
            let store = Box::new(MemoryStore::new());
            let registry = Registry::start(RegistryConfig::default(), store).await.unwrap();
            let app = portolan_web::router(registry.clone()).fallback(portolan_web::not_found);
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::spawn(async move { axum::serve(listener, app).await });
            registry
        });
        Self { runtime: Some(runtime), registry, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn register(&self, body: Value) {
        let registration: Registration = serde_json::from_value(body).unwrap();
        let register = self.registry.register(registration, Caller::Process);
        self.runtime.as_ref().unwrap().block_on(register).unwrap();
    }

    fn leave(&self, name: &str) {
        let name: Name = name.parse().unwrap();
        self.runtime.as_ref().unwrap().block_on(self.registry.deregister(&name, None)).unwrap();
    }

    /// Ends everything at once, as a crash does.
    fn crash(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
    }
}

fn web(i: usize) -> Value {
    json!({
        "name": format!("web-{i}"), "service": if i.is_multiple_of(2) { "even" } else { "odd" }, "node": "rack-a",
        "addresses": ["192.0.2.7"], "labels": { "tier": "front" },
        "ports": [{ "name": "http", "port": (20000 + i).to_string(), "container": 8080 }],
    })
}

fn number(browser: &Browser<'_>, script: &str) -> f64 {
    browser.script(&format!("return {script}")).as_f64().unwrap()
}

/// Nothing went wrong in the page, and the policy had nothing to forbid.
fn assert_clean(browser: &Browser<'_>) {
    let errors: Vec<_> = browser.console().into_iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn rows_come_change_and_go_without_a_reload() {
    need_root!();
    let namespace = Namespace::new();
    let site = Site::start(&namespace);
    let browser = Browser::start(&namespace);
    browser.open(&site.url("/"));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    assert!(browser.text("#none").contains("No instance is registered yet"));

    site.register(web(1));
    browser.wait_text(SOON, "#rows", |text| text.contains("192.0.2.7:20001"));
    assert!(browser.script("return document.querySelector('#none').hidden").as_bool().unwrap());
    let mut moved = web(1);
    moved["ports"][0]["port"] = json!("20555");
    site.register(moved);
    browser.wait_text(SOON, "#rows", |text| text.contains("20555") && !text.contains("20001"));
    site.register(web(10));
    site.register(web(2));
    browser.wait_text(SOON, "#counts", |text| text.contains("3 all") && text.contains("3 passing"));
    assert_eq!(browser.texts("td.c-name"), ["web-1", "web-2", "web-10"]);
    site.leave("web-2");
    browser.wait_text(SOON, "#summary", |text| text == "2 instances");

    // The link of a port opens it; the copy button says what it did.
    let open = browser.script("return document.querySelector('a.act').href");
    assert_eq!(open, "http://192.0.2.7:20555/");
    browser.script("document.querySelector('button.act').click()");
    browser.wait_text(SOON, "#said", |text| text == "Copied 192.0.2.7:20555");
    assert_clean(&browser);
}

#[test]
fn filters_are_kept_in_the_address() {
    need_root!();
    let namespace = Namespace::new();
    let site = Site::start(&namespace);
    for i in 1..=20 {
        site.register(web(i));
    }
    let browser = Browser::start(&namespace);
    browser.open(&site.url("/?q=web-1&service=even"));
    browser.wait_text(SOON, "#summary", |text| text == "5 of 20 instances");
    browser.wait_text(SOON, "#status", |text| text == "Live");
    assert_eq!(
        browser.texts("td.c-name"),
        ["web-10", "web-12", "web-14", "web-16", "web-18"].map(str::to_owned)
    );
    browser.script(
        "const q = document.querySelector('[name=q]'); q.value = '192.0.2.7:20012'; \
         q.dispatchEvent(new Event('input', { bubbles: true }))",
    );
    browser.wait_text(SOON, "#summary", |text| text == "1 of 20 instances");
    assert_eq!(browser.script("return location.search"), "?q=192.0.2.7%3A20012&service=even");
    browser.script("document.querySelector('[data-state=critical]').click()");
    browser.wait_text(SOON, "#nothing", |text| text.contains("Nothing matches"));
    assert_eq!(browser.script("return location.search"), "?q=192.0.2.7%3A20012&service=even&state=critical");
    // What comes and matches is shown, what does not is only counted.
    browser.script("document.querySelector('#clear').click()");
    browser.wait_text(SOON, "#summary", |text| text == "20 instances");
    browser.script("document.querySelector('th[data-sort=name] button').click()");
    browser.wait_text(SOON, "td.c-name", |text| text == "web-20");
    assert_eq!(browser.script("return location.search"), "?sort=-name");
    assert_clean(&browser);
}

#[test]
fn a_paused_page_stands_still_and_catches_up() {
    need_root!();
    let namespace = Namespace::new();
    let site = Site::start(&namespace);
    site.register(web(1));
    let browser = Browser::start(&namespace);
    browser.open(&site.url("/"));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    browser.script("document.querySelector('#pause').click()");
    site.register(web(2));
    site.leave("web-1");
    browser.wait_text(SOON, "#status", |text| text == "Paused: 2 changed since");
    assert_eq!(browser.texts("td.c-name"), ["web-1"]);
    browser.script("document.querySelector('#pause').click()");
    eventually(SOON, || browser.texts("td.c-name") == ["web-2"]);
    assert_eq!(browser.text("#status"), "Live");
}

#[test]
fn a_page_says_that_it_is_disconnected_and_comes_back() {
    need_root!();
    let namespace = Namespace::new();
    let mut site = Site::start(&namespace);
    site.register(web(1));
    let browser = Browser::start(&namespace);
    browser.open(&site.url("/"));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    site.crash();
    browser.wait_text(SOON, "#status", |text| text.starts_with("Disconnected: as of "));
    assert_eq!(browser.texts("td.c-name"), ["web-1"], "what was known is still there to read");

    // Another registry on the same address, with another catalog.
    let address = site.address;
    let again = Site::on(namespace.run(|| TcpListener::bind(address)).unwrap());
    again.register(web(2));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    eventually(SOON, || browser.texts("td.c-name") == ["web-2"]);
}

#[test]
fn the_page_of_an_instance_follows_it() {
    need_root!();
    let namespace = Namespace::new();
    let site = Site::start(&namespace);
    site.register(web(1));
    let browser = Browser::start(&namespace);
    browser.open(&site.url("/"));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    browser.script("document.querySelector('td.c-name a').click()");
    browser.wait_text(SOON, "h1", |text| text.contains("web-1") && text.contains("passing"));
    browser.wait_text(SOON, "#status", |text| text == "Live");
    site.leave("web-1");
    browser.wait_text(SOON, "#detail", |text| text.contains("This instance has left the catalog"));
    site.register(web(1));
    browser.wait_text(SOON, "h1", |text| text.contains("passing"));
}

#[test]
fn ten_thousand_rows_are_as_quick_as_fifty() {
    need_root!();
    let namespace = Namespace::new();
    let site = Site::start(&namespace);
    for i in 0..10_000 {
        site.register(web(i));
    }
    let browser = Browser::start(&namespace);
    let begin = Instant::now();
    browser.open(&site.url("/"));
    browser.wait_text(SOON * 2, "#status", |text| text == "Live");
    browser.wait_text(SOON * 2, "#summary", |text| text == "10,000 instances");
    let loaded = begin.elapsed();
    eventually(SOON * 2, || number(&browser, "document.querySelectorAll('#rows tr').length") < 150.0);

    // Scrolled to the middle, then rows above and in view change: what is on the screen stays where it is.
    browser.script("scrollTo(0, document.body.scrollHeight / 2)");
    let first = "(() => { for (const tr of document.querySelectorAll('#rows tr[aria-rowindex]')) { \
                 const r = tr.getBoundingClientRect(); if (r.top >= 40) return [tr.querySelector('a').innerText, r.top]; } })()";
    eventually(SOON, || {
        browser.script(&format!("return {first}"))[0].as_str().is_some_and(|name| name.starts_with("web-"))
    });
    let before = browser.script(&format!("return {first}"));
    for i in 0..20 {
        site.leave(&format!("web-{i}"));
    }
    browser.wait_text(SOON, "#summary", |text| text == "9,980 instances");
    let after = browser.script(&format!("return {first}"));
    assert_eq!(before[0], after[0], "no jump");
    assert!((before[1].as_f64().unwrap() - after[1].as_f64().unwrap()).abs() < 2.0, "{before} {after}");

    // The rows that are computed are the rows that are laid out.
    let off = number(
        &browser,
        "Math.max(...[...document.querySelectorAll('#rows tr[aria-rowindex]')].map(tr => \
         Math.abs(tr.getBoundingClientRect().height - height(rows.get(tr.querySelector('a').innerText)))))",
    );
    assert!(off < 0.5, "heights differ by {off}");
    let refresh = number(
        &browser,
        "(() => { const t = performance.now(); refresh(); return performance.now() - t })()",
    );
    let filtered = number(
        &browser,
        "(() => { const t = performance.now(); filter.q = '2042'; refresh(); return performance.now() - t })()",
    );
    let heap = number(&browser, "performance.memory.usedJSHeapSize / 1e6");
    eprintln!(
        "10,000 rows: {loaded:?} to live, refresh {refresh:.1} ms, filter {filtered:.1} ms, heap {heap:.0} MB"
    );
    // Generous: a debug build of the server and a machine with other work.
    assert!(loaded < Duration::from_secs(20) && refresh < 500.0 && filtered < 500.0);
    assert_clean(&browser);
}
