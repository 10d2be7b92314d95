//! The table of tracked connections is full: nobody new gets through, those who are there go on, and what changes
//! meanwhile holds when there is room again.

use std::{io::Write as _, time::Duration};

use portolan_testkit::{eventually_ok, need_root, programs};
use portolan_tests::proxy::{
    load::Open,
    program::Program,
    service::{Protocol, Service},
    stage::{PATIENCE, Stage},
    world::{Family, Place},
};

const POD: Place = Place::Pod(1, 'c');
/// More than this would be no small part of the machine's memory (some 320 bytes each).
const MOST: usize = 600_000;

#[test]
#[ignore = "fills a namespace's table of connections, some 80 MB of kernel memory: `make conformance` runs it"]
fn with_a_full_table_connections_go_on_and_changes_hold() {
    need_root!();
    let Some(stage) = Stage::new("full") else { return };
    // The limit is the machine's and not to be changed from here; what is counted is the namespace's own.
    let limit = stage.world.at(Place::Node(1)).read_sysctl("net/netfilter/nf_conntrack_max");
    let limit: usize = limit.trim().parse().unwrap_or_else(|error| panic!("{limit}: {error}"));
    if limit > MOST {
        portolan_testkit::skip("nf_conntrack_max is so large that filling it would take too much memory");
        return;
    }
    let service = Service::new(Family::V4, Protocol::Tcp).at(&["1a"]);
    let target = service.cluster(Family::V4, Protocol::Tcp);
    service.create(&stage.api);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let mut open = Open::new(&stage.world, POD, target, 50);
    fill(&stage, limit);
    // Entries that nobody answered make room for new ones; these were answered.
    stage.expect(POD, target, "silence");
    assert_eq!(open.broken(), 0, "connections that are tracked go on");
    service.move_to(&stage.api, &["2a"]);
    let written = eventually_ok(PATIENCE, || {
        let rules = stage.on_node(1, "nft", &["list", "map", "inet", "portolan-services", "backends4"]);
        if rules.contains(&format!("{} : 10.244.2.10", target.address.ip())) { Ok(()) } else { Err(rules) }
    });
    assert_eq!(written, Ok(()), "{}", proxies[0].log());
    assert!(proxies[0].process.is_running(), "{}", proxies[0].process.transcript());
    // Those that have filled it are gone.
    let mut delete = stage.world.at(Place::Node(1)).command("conntrack");
    let deleted = delete.args(["-D", "-p", "udp", "--orig-dst", "203.0.113.7"]).output();
    assert!(deleted.is_ok_and(|output| output.status.success()), "{delete:?}");
    stage.expect_within(Duration::from_secs(30), POD, target, "2a");
    assert_eq!(open.broken(), 0);
}

/// Puts so many entries into the table that there is room for none.
#[track_caller]
fn fill(stage: &Stage, limit: usize) {
    let file = stage.api.file("entries");
    let write = || -> std::io::Result<()> {
        let mut lines = std::io::BufWriter::new(std::fs::File::create(&file)?);
        for number in 0..limit {
            let (port, host) = (1_024 + number % 60_000, 1 + number / 60_000);
            writeln!(
                lines,
                "-I -p udp -s 203.0.113.{host} -d 203.0.113.7 --sport {port} --dport 9 --timeout 600 -u SEEN_REPLY,ASSURED"
            )?;
        }
        lines.flush()
    };
    write().unwrap_or_else(|error| panic!("{error}"));
    let node = stage.world.at(Place::Node(1));
    // It ends with an error when there is no room for the last ones, which is what is wanted.
    let _ = node.command("conntrack").arg("-R").arg(&file).output();
    let count: usize =
        node.read_sysctl("net/netfilter/nf_conntrack_count").trim().parse().unwrap_or_default();
    assert!(count + 8 > limit, "{count} of {limit} are taken: {}", programs::need("conntrack").display());
}
