//! The page in a real browser: what it shows is what is there, and it changes by itself.

use std::time::Duration;

use portolan_testkit::{Portolan, browser::Browser, need_root};
use portolan_tests::world::{connected, wait_passing};

/// How long the page may need to show a change: the change itself needs a check or two.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn it_shows_every_instance_and_what_becomes_of_it() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let mut demo = machine.start(&["demo"]);
    machine.wait_ready(&mut demo);
    wait_passing(&machine, 3);

    let browser = Browser::start(machine.namespace());
    // Not 10080: browsers refuse to open it, being on the list of bad ports of the Fetch standard.
    browser.open("http://127.0.0.1:10082/");
    browser.wait_text(SOON, "body", |text| text.matches("passing").count() >= 3);
    let rows = browser.texts("tbody tr");
    for name in ["port-server-0", "port-server-1", "port-server-2"] {
        assert_eq!(rows.iter().filter(|row| row.contains(name)).count(), 1, "{rows:#?}");
    }

    // One more comes, one more row; it goes, and its row with it. Nobody reloads the page.
    let program = portolan_testkit::binary().to_str().expect("a path");
    let mut late = machine.start(&["run", "--name", "latecomer", "-p", "http", "--", program, "serve"]);
    browser.wait_text(SOON, "tbody", |text| text.contains("latecomer"));
    machine.interrupt(&mut late);
    browser.wait_text(SOON, "tbody", |text| !text.contains("latecomer"));

    let errors: Vec<_> = browser.console().into_iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let outside = browser.script(
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))",
    );
    assert_eq!(outside, serde_json::json!([]), "everything comes from the page's own server");
    machine.interrupt(&mut demo);
}
