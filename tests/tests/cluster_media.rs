//! A media relay behind a block of ports: Debian's coturn in a Pod, its own client and a peer outside, on a real cluster.

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use portolan_cluster::need_cluster;
use portolan_testkit::{Background, need_root, programs};
use portolan_tests::{
    cluster::{Outside, Space, installed, public_address, told},
    console::Place as _,
};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn two_relays_on_one_node_relay_by_blocks_of_their_own() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    programs::need("turnutils_uclient");
    let space = Space::new(cluster, "media");
    let outside = Outside::new(cluster, space.name(), "examples/media");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/media/coturn.yaml");
    let manifest =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let image = manifest.lines().find(|line| line.contains("image:")).unwrap_or_default().to_owned();
    let node = cluster.node(1).name();
    // Debian's coturn in the place of the project's own image, and both on one node.
    let here = "          image: debian-tools:1\n";
    let manifest = manifest.replace(&format!("{image}\n"), here).replacen(
        "    spec:\n",
        &format!("    spec:\n      nodeName: {node}\n"),
        1,
    );
    space.apply(&manifest);
    let pods = space.wait_for_pods("app=coturn", 2);
    let ports: Vec<_> = pods.iter().map(told).collect();
    let blocks: Vec<_> = ports.iter().map(|ports| ports[1].host.clone()).collect();
    assert!(blocks[0].end() < blocks[1].start() || blocks[1].end() < blocks[0].start(), "{blocks:?}");

    for (pod, ports) in pods.iter().zip(&ports) {
        let (turn, block) = (*ports[0].host.start(), &ports[1].host);
        // The peer hears from which address and port the relay speaks: that must be one of the block, on the node.
        let peer = outside.namespace().run(|| UdpSocket::bind((portolan_cluster::CLIENT_V4, 0)));
        let peer = peer.unwrap_or_else(|error| panic!("{error}"));
        let number = peer.local_addr().map(|address| address.port()).unwrap_or_default();
        let (heard, sources) = mpsc::channel();
        let _ = peer.set_read_timeout(Some(SOON));
        let echoing = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = peer.recv_from(&mut buffer) {
                let _ = heard.send(from);
                let _ = peer.send_to(&buffer[..length], from);
            }
        });
        let relay: IpAddr = public_address(pod);
        // -y would talk to itself; -e and -r name the peer; -W is its own word for the shared secret, which we do not use.
        let command = format!(
            "turnutils_uclient -u user -w secret -p {turn} -e {} -r {number} -n 5 -m 1 -c -X {relay}",
            portolan_cluster::CLIENT_V4
        );
        let mut client = Background::start(&mut outside.shell(&command));
        let from = sources.recv_timeout(SOON);
        let Ok(from) = from else { panic!("no packet of the relay: {}", client.transcript()) };
        assert_eq!(from.ip(), relay, "{}", client.transcript());
        assert!(block.contains(&from.port()), "{from} is not of {block:?}");
        let ended = client.wait(SOON);
        let said = client.transcript();
        assert!(ended.success(), "{said}");
        assert!(said.contains("tot_recv_msgs=5") || said.contains("Total lost packets 0 "), "{said}");
        drop(echoing);
    }
}
