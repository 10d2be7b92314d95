//! Chromium opens a page inside a namespace and a test reads it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use portolan_testkit::{browser::Browser, need_root, net::Namespace};

const PAGE: &str = "<!doctype html><title>t</title><p id=late></p>\
    <script>setTimeout(() => { late.innerText = 'arrived' }, 100)</script>";

#[test]
fn a_page_is_opened_and_changes_are_seen() {
    need_root!();
    let namespace = Namespace::new();
    let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                    PAGE.len()
                );
            });
        }
    });
    let browser = Browser::start(&namespace);
    browser.open(&format!("http://{address}/"));
    assert_eq!(browser.script("return document.title"), "t");
    browser.wait_text(Duration::from_secs(10), "#late", |text| text == "arrived");
    assert_eq!(browser.texts("p"), ["arrived"]);
}
