//! A repair says who made it necessary, and what was found.
#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use portolan_apply::{DataPlane, PlanConfig};
use portolan_testkit::{eventually, need_root, net::private_namespace, nft};

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// Alone in its file: the log is the whole process's.
#[test]
fn a_repair_names_the_program_and_what_it_did() {
    need_root!();
    let page = Page::default();
    let writer = page.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), vec![]).unwrap();
        nft::nft("flush ruleset");
        let text = || String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        eventually(Duration::from_secs(1), || text().contains("repaired"));
        let text = text();
        let line = text.lines().find(|line| line.contains("repaired")).unwrap();
        for part in ["WARN", "program=nft", "process=", "table inet portolan is missing"] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        drop(plane);
    });
}
