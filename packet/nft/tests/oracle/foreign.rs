//! Tables of others may hold anything: they are read without an error, and what has no type here comes as unknown.

use portolan_nft::{DataType, Expression, Kernel, Nft, Policy, Ruleset};
use portolan_testkit::{need_root, net::private_namespace, nft};

const THEIRS: &str = r#"
table inet firewall {
    counter total { }
    set names { typeof tcp option mss size; elements = { 1460 }; }
    set pairs { type ipv4_addr . ether_addr . mark; elements = { 10.0.0.1 . 00:11:22:33:44:55 . 7 }; }
    chain input {
        type filter hook input priority filter; policy drop;
        tcp dport { 22, 80-90 } accept
        ip saddr vmap { 10.0.0.0/8 : accept, 192.0.2.1 : drop }
        tcp flags & (syn | ack) == syn tcp option maxseg size set 1400
        ip dscp set cs3
        counter name total
        ip saddr 10.0.0.1 ether saddr 00:11:22:33:44:55 accept
        meta skuid 1000 ct helper set "none" 
    }
}
table arp resolver { chain c { type filter hook input priority 0; arp operation request accept; }; }
table bridge switch { chain c { type filter hook prerouting priority 0; ether type ip accept; }; }
table netdev early { chain c { type filter hook ingress device "lo" priority 0; fwd to "lo"; }; }
table ip6 empty { }
"#;

#[test]
fn tables_of_others_are_read_whatever_they_hold() {
    need_root!();
    // A helper must be declared; the rest loads as it stands.
    let theirs = THEIRS.replace(" ct helper set \"none\" ", " accept");
    private_namespace(|| {
        nft::load(&theirs);
        let mut kernel = Kernel::open().unwrap();
        let tables = kernel.tables().unwrap();
        let names: Vec<_> = tables.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["inet firewall", "arp resolver", "netdev early", "bridge switch", "ip6 empty"]);
        let dumps: Vec<Ruleset> = tables.iter().map(|table| kernel.dump(table).unwrap().unwrap()).collect();
        let input = dumps[0].find_chain("input").unwrap();
        assert_eq!(input.chain.base.as_ref().unwrap().policy, Policy::Drop);
        assert_eq!(input.rules.len(), 7);
        let unknown = |one: &&Expression| matches!(one, Expression::Unknown(_));
        assert!(input.rules[2].expressions.iter().any(|one| unknown(&one)));
        let pairs = dumps[0].find_set("pairs").unwrap();
        assert_eq!(pairs.set.key, [DataType::Ipv4Addr, DataType::EtherAddr, DataType::Mark]);
        assert_eq!(pairs.elements.len(), 1);
        // The anonymous sets of their rules are there too, intervals joined.
        let anonymous = dumps[0].sets.iter().find(|filled| filled.set.interval).unwrap();
        assert_eq!(anonymous.elements.len(), 2);
        // And all of it can be printed.
        assert!(dumps.iter().all(|dump| dump.to_string().starts_with("table ")));
    });
}
