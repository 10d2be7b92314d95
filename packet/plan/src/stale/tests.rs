use portolan_model::PortRange;

use super::*;
use crate::PlanConfig;

/// udp 20001 and the block 21000-21099 lead to 10.213.0.2, udp 192.0.2.2:20001 to 10.213.0.3.
fn plan() -> Plan {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    let one = Mapping {
        protocol: Protocol::Udp,
        address: None,
        host: PortRange::single(20001).unwrap(),
        container: 7777,
        v4: Some([10, 213, 0, 2].into()),
        v6: None,
    };
    let block = Mapping { host: PortRange::new(21000, 21099).unwrap(), container: 21000, ..one.clone() };
    let at =
        Mapping { address: Some([192, 0, 2, 2].into()), v4: Some([10, 213, 0, 3].into()), ..one.clone() };
    for mapping in [one, block, at] {
        plan.add(&mapping).unwrap();
    }
    plan
}

fn is_local(address: IpAddr) -> bool {
    ["192.0.2.1", "192.0.2.2", "10.213.0.1", "127.0.0.1"].iter().any(|own| own.parse() == Ok(address))
}

#[track_caller]
fn judge(client: &str, asked: &str, server: &str, seen: &str) -> bool {
    let [client, asked, server, seen] = [client, asked, server, seen].map(|text| text.parse().unwrap());
    plan().is_stale(
        &Flow { protocol: Protocol::Udp, client, asked, server, seen },
        &Touched::default(),
        is_local,
    )
}

const CLIENT: &str = "198.51.100.9:5555";

#[test]
fn flows_that_go_where_the_plan_says_are_kept() {
    assert!(!judge(CLIENT, "192.0.2.1:20001", "10.213.0.2:7777", CLIENT));
    assert!(!judge(CLIENT, "192.0.2.1:21042", "10.213.0.2:21042", CLIENT));
    assert!(!judge(CLIENT, "192.0.2.2:20001", "10.213.0.3:7777", CLIENT));
    // From the machine itself, from another instance, from the same instance.
    assert!(!judge("192.0.2.1:5555", "192.0.2.1:20001", "10.213.0.2:7777", "192.0.2.1:5555"));
    assert!(!judge("10.213.0.9:5555", "192.0.2.1:20001", "10.213.0.2:7777", "10.213.0.9:5555"));
    assert!(!judge("10.213.0.2:5555", "192.0.2.1:20001", "10.213.0.2:7777", "192.0.2.1:40000"));
}

#[test]
fn flows_to_another_instance_or_to_the_machine_are_stale() {
    assert!(judge(CLIENT, "192.0.2.1:20001", "10.213.0.9:7777", CLIENT));
    assert!(judge(CLIENT, "192.0.2.1:20001", "10.213.0.2:7778", CLIENT));
    assert!(judge(CLIENT, "192.0.2.1:20001", "192.0.2.1:20001", CLIENT));
    assert!(judge(CLIENT, "192.0.2.2:20001", "10.213.0.2:7777", CLIENT));
}

#[test]
fn flows_of_a_mapping_that_is_gone_are_stale() {
    assert!(judge(CLIENT, "192.0.2.1:20009", "10.213.0.2:7777", CLIENT));
    assert!(judge("10.213.0.2:9999", CLIENT, CLIENT, "192.0.2.1:20009"));
}

#[test]
fn flows_that_are_not_ours_are_kept() {
    // Passing through to a mapped number.
    assert!(!judge(CLIENT, "203.0.113.7:20001", "203.0.113.7:20001", CLIENT));
    // Rewritten by somebody else, to somewhere else.
    assert!(!judge(CLIENT, "203.0.113.7:20001", "172.17.0.2:80", CLIENT));
    assert!(!judge(CLIENT, "192.0.2.1:30001", "172.17.0.2:80", CLIENT));
    // To the machine's own services, by anybody.
    assert!(!judge(CLIENT, "192.0.2.1:53", "192.0.2.1:53", CLIENT));
    assert!(!judge("10.213.0.2:7777", "10.213.0.1:53", "10.213.0.1:53", "10.213.0.2:7777"));
    assert!(!judge("127.0.0.1:20001", "127.0.0.1:53", "127.0.0.1:53", "127.0.0.1:20001"));
    // Straight between instances, and to everybody.
    assert!(!judge("10.213.0.2:7777", "10.213.0.3:20001", "10.213.0.3:20001", "10.213.0.2:7777"));
    assert!(!judge("10.213.0.2:7777", "224.0.0.251:5353", "224.0.0.251:5353", "10.213.0.2:7777"));
    // What other networks behind this machine send.
    assert!(!judge("172.17.0.2:7777", CLIENT, CLIENT, "192.0.2.1:7777"));
}

#[test]
fn what_instances_send_must_show_the_published_port() {
    assert!(!judge("10.213.0.2:7777", CLIENT, CLIENT, "192.0.2.1:20001"));
    assert!(!judge("10.213.0.2:21042", CLIENT, CLIENT, "192.0.2.1:21042"));
    assert!(!judge("10.213.0.3:7777", CLIENT, CLIENT, "192.0.2.2:20001"));
    assert!(judge("10.213.0.2:7777", CLIENT, CLIENT, "192.0.2.1:40000"));
    assert!(judge("10.213.0.2:7777", CLIENT, CLIENT, "10.213.0.2:7777"));
    assert!(judge("10.213.0.2:21042", CLIENT, CLIENT, "192.0.2.1:40000"));
    // The mapping is of another address.
    assert!(judge("10.213.0.3:7777", CLIENT, CLIENT, "192.0.2.1:20001"));
    // To another instance through its published port.
    assert!(judge("10.213.0.3:7777", "192.0.2.1:20001", "10.213.0.2:7777", "10.213.0.3:7777"));
    assert!(!judge("10.213.0.3:7777", "192.0.2.1:20001", "10.213.0.2:7777", "192.0.2.2:20001"));
    // Ports that are not mapped.
    assert!(!judge("10.213.0.2:5555", CLIENT, CLIENT, "192.0.2.1:40000"));
}

#[test]
fn a_socket_of_the_machine_that_had_the_number_is_forgotten() {
    assert!(judge("192.0.2.1:20001", CLIENT, CLIENT, "192.0.2.1:20001"));
    assert!(!judge("192.0.2.1:20009", CLIENT, CLIENT, "192.0.2.1:20009"));
}

#[test]
fn only_flows_of_touched_ports_are_looked_at() {
    let mut touched = Touched::default();
    assert!(touched.is_empty());
    let plan = plan();
    for mapping in plan.mappings().filter(|mapping| mapping.host.is_single()) {
        touched.mapping(&Mapping { protocol: Protocol::Tcp, ..mapping.clone() });
        assert!(touched.is_empty(), "TCP connections end by themselves");
    }
    plan.mappings().filter(|mapping| mapping.host.is_single()).for_each(|mapping| touched.mapping(mapping));
    let flow = |client: &str, asked: &str| {
        let (client, asked): (SocketAddr, SocketAddr) = (client.parse().unwrap(), asked.parse().unwrap());
        Flow { protocol: Protocol::Udp, client, asked, server: asked, seen: client }
    };
    assert!(touched.contains(&flow(CLIENT, "192.0.2.1:20001")));
    assert!(touched.contains(&flow("192.0.2.1:20001", CLIENT)));
    assert!(touched.contains(&flow("10.213.0.2:7777", CLIENT)));
    assert!(!touched.contains(&flow(CLIENT, "192.0.2.1:21042")));
    let mut all = Touched::default();
    all.merge(&touched);
    assert!(all.contains(&flow(CLIENT, "192.0.2.1:20001")) && !all.contains(&flow(CLIENT, "192.0.2.1:1")));
    all.merge(&Touched::everything());
    assert!(all.contains(&flow(CLIENT, "192.0.2.1:1")));
}

/// The same mappings on a node of a cluster, whose Pods are of 10.213.0.0/24; `gone`: a host port whose mapping went.
#[track_caller]
fn judge_any(gone: u16, client: &str, asked: &str, server: &str, seen: &str) -> bool {
    let networks = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
    let config = PlanConfig {
        local: networks(&["10.213.0.0/24"]),
        direct: networks(&["10.213.0.0/16", "10.96.0.0/12"]),
        pools: vec![PortRange::new(20000, 29999).unwrap()],
        ..PlanConfig::any()
    };
    let plan = Plan::with(config, plan().mappings()).unwrap();
    let mut touched = Touched::default();
    touched.mapping(&Mapping {
        host: PortRange::single(gone).unwrap(),
        ..plan.mappings().next().unwrap().clone()
    });
    let [client, asked, server, seen] = [client, asked, server, seen].map(|text| text.parse().unwrap());
    plan.is_stale(&Flow { protocol: Protocol::Udp, client, asked, server, seen }, &touched, is_local)
}

#[test]
fn on_a_node_of_a_cluster_only_what_is_ours_is_stale() {
    let judge = |client, asked, server, seen| judge_any(8080, client, asked, server, seen);
    // As mapped.
    assert!(!judge(CLIENT, "192.0.2.1:20001", "10.213.0.2:7777", CLIENT));
    assert!(!judge(CLIENT, "192.0.2.1:21042", "10.213.0.2:21042", CLIENT));
    // Another instance; nobody any more, of a pool or of a port that was mapped until now.
    assert!(judge(CLIENT, "192.0.2.1:20001", "10.213.0.9:7777", CLIENT));
    assert!(judge(CLIENT, "192.0.2.1:20009", "10.213.0.9:7777", CLIENT));
    assert!(judge(CLIENT, "192.0.2.1:8080", "10.213.0.9:7777", CLIENT));
    // A node port and a port of another plugin's.
    assert!(!judge(CLIENT, "192.0.2.1:30080", "10.213.0.2:7777", "10.213.0.1:4444"));
    assert!(!judge(CLIENT, "192.0.2.1:8081", "172.17.0.2:80", CLIENT));
    // Services: from a mapped port, masqueraded by others or not.
    assert!(!judge("10.213.0.2:7777", "10.96.0.10:53", "10.213.7.2:53", "10.213.0.2:7777"));
    assert!(!judge("10.213.0.2:7777", "10.96.0.10:20001", "10.213.0.2:7777", "192.0.2.1:555"));
    // Straight to Pods, here and elsewhere.
    assert!(!judge("10.213.0.2:7777", "10.213.0.3:7777", "10.213.0.3:7777", "10.213.0.2:7777"));
    assert!(!judge("10.213.0.2:7777", "10.213.7.3:20001", "10.213.7.3:20001", "10.213.0.2:7777"));
    // To the world: from a mapped port as published, from others as the CNI plugin likes, but not as a port of ours.
    assert!(!judge("10.213.0.2:7777", CLIENT, CLIENT, "192.0.2.1:20001"));
    assert!(judge("10.213.0.2:7777", CLIENT, CLIENT, "192.0.2.1:7777"));
    assert!(judge("10.213.0.2:7777", CLIENT, CLIENT, "10.213.0.2:7777"));
    assert!(!judge("10.213.0.2:5555", CLIENT, CLIENT, "192.0.2.1:5555"));
    assert!(!judge("10.213.0.9:7777", CLIENT, CLIENT, "192.0.2.1:7777"));
    assert!(judge("10.213.0.9:7777", CLIENT, CLIENT, "192.0.2.1:20009"));
    assert!(judge("10.213.0.9:7777", CLIENT, CLIENT, "192.0.2.1:8080"));
    // Between instances of this machine by published ports: not with the sender's own address.
    assert!(!judge("10.213.0.3:5555", "192.0.2.1:20001", "10.213.0.2:7777", "192.0.2.1:40000"));
    assert!(judge("10.213.0.3:5555", "192.0.2.1:20001", "10.213.0.2:7777", "10.213.0.3:5555"));
    assert!(!judge("10.213.0.3:7777", "192.0.2.1:20001", "10.213.0.2:7777", "192.0.2.2:20001"));
    // The machine's own.
    assert!(!judge("192.0.2.1:5555", CLIENT, CLIENT, "192.0.2.1:5555"));
    assert!(judge("192.0.2.1:20001", CLIENT, CLIENT, "192.0.2.1:20001"));
    assert!(!judge("10.213.0.2:7777", "192.0.2.1:53", "192.0.2.1:53", "10.213.0.2:7777"));
}

#[test]
fn mappings_are_read_back_from_their_elements() {
    for mapping in plan().mappings() {
        for (set, element) in ingress::elements(mapping) {
            assert_eq!(ingress::mapping(set, &element).as_ref(), Some(mapping));
        }
    }
    let difference =
        crate::diff(Some(&Plan::new(PlanConfig::default()).unwrap().ruleset()), &plan().ruleset());
    let touched = Touched::everything_and(&difference);
    assert!(touched.names(20001) && touched.names(21099) && !touched.names(20002));
}
