//! A real browser: Chromium, driven through the W3C WebDriver protocol by Debian's chromedriver.
//!
//! A test needs five of the protocol's commands, each one small HTTP request to loopback, so there is no WebDriver
//! library here: `webdriver`, which all of them build on, would be the largest dependency of all tests.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Background, ask, eventually_ok, net::Namespace, programs};

/// How long Chromium may take to start on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A Chromium of its own inside a namespace, with one session. It ends with the value.
#[derive(Debug)]
pub struct Browser<'a> {
    namespace: &'a Namespace,
    driver: SocketAddr,
    session: String,
    // In this order: the driver is stopped before the profile is removed.
    process: Background,
    _profile: TempDir,
}

impl<'a> Browser<'a> {
    /// Starts Chromium inside `namespace` with a fresh profile.
    #[track_caller]
    pub fn start(namespace: &'a Namespace) -> Self {
        programs::need("chromium");
        programs::need("chromedriver");
        let profile = match TempDir::with_prefix("portolan-browser-") {
            Ok(profile) => profile,
            Err(error) => panic!("cannot make a temporary folder: {error}"),
        };
        let mut command = namespace.command("chromedriver");
        command.arg("--port=0").env("HOME", profile.path());
        let mut process = Background::start(&mut command);
        // "ChromeDriver was started successfully on port 41235."
        let said = process.wait_stdout(START, |text| text.contains("successfully on port"));
        let port: u16 = said
            .split_once("successfully on port ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .unwrap_or_else(|| panic!("no port in {said:?}"));
        let options = json!({
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--window-size=1280,900",
                format!("--user-data-dir={}", profile.path().join("chromium").display()),
            ],
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let mut browser = Self {
            namespace,
            driver: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            process,
            _profile: profile,
        };
        let session = browser.send("POST", "/session", &capabilities);
        match session["sessionId"].as_str() {
            Some(id) => browser.session = id.to_owned(),
            None => panic!("no session: {session}\n{}", browser.process.transcript()),
        }
        browser
    }

    /// Loads a page and waits until it has loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.send("POST", &format!("/session/{}/url", self.session), &json!({ "url": url }));
    }

    /// Runs the body of a JavaScript function in the page and returns what it returns.
    #[track_caller]
    pub fn script(&self, body: &str) -> Value {
        let call = json!({ "script": body, "args": [] });
        self.send("POST", &format!("/session/{}/execute/sync", self.session), &call)
    }

    /// The visible text of the first element that `selector` (CSS) finds; empty when there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let value =
            self.script(&format!("return document.querySelector({})?.innerText ?? ''", json!(selector)));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// The visible text of every element that `selector` (CSS) finds.
    #[track_caller]
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let all = format!("return [...document.querySelectorAll({})].map(e => e.innerText)", json!(selector));
        let value = self.script(&all);
        let texts = value.as_array().map(Vec::as_slice).unwrap_or_default();
        texts.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until the text of `selector` satisfies `condition` and says how long that took.
    #[track_caller]
    pub fn wait_text(
        &self,
        deadline: Duration,
        selector: &str,
        condition: impl Fn(&str) -> bool,
    ) -> Duration {
        let start = Instant::now();
        let seen = eventually_ok(deadline, || {
            let text = self.text(selector);
            if condition(&text) { Ok(()) } else { Err(text) }
        });
        match seen {
            Ok(()) => start.elapsed(),
            Err(text) => panic!("{selector} says, after {deadline:?}: {text:?}"),
        }
    }

    /// The browser's own log, as Chromium's `get log` command gives it: errors of scripts, failed requests.
    #[track_caller]
    pub fn console(&self) -> Vec<Value> {
        let log =
            self.send("POST", &format!("/session/{}/se/log", self.session), &json!({ "type": "browser" }));
        log.as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let answer = self.namespace.run(|| ask::http_within(self.driver, START, method, path, &body));
        match answer {
            Ok((200, text)) => {
                let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
                value["value"].take()
            }
            Ok((status, text)) => panic!("WebDriver answered {status} to {method} {path}: {text}"),
            Err(error) => panic!("WebDriver {method} {path}: {error}\n{}", self.process.transcript()),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Ending the session ends Chromium; killing the driver alone would leave it.
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = self.namespace.run(|| ask::http_within(self.driver, START, "DELETE", &path, "{}"));
        }
    }
}
