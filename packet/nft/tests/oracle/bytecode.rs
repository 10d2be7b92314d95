//! Same rule, same bytecode.

use std::collections::BTreeMap;

use portolan_nft::{Family, Kernel, Nft, Table};
use portolan_testkit::{need_root, net::private_namespace, nft};

use crate::cases::{cases, ruleset, ruleset_text};

/// The bytecode of each chain's rule, as nft prints what the kernel holds.
fn listed(table: &str) -> BTreeMap<String, Vec<String>> {
    bytecode(&nft::nft(&format!("--debug=netlink list table inet {table}")), table)
}

/// The bytecode of each chain's rule in nft's output.
fn bytecode(text: &str, table: &str) -> BTreeMap<String, Vec<String>> {
    let mut rules = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            // A rule begins: family, table, chain, handle.
            ["inet", name, chain, ..] if *name == table => current = Some((*chain).to_owned()),
            ["[", .., "]"] => {
                let code = words[1..words.len() - 1].join(" ");
                // nft 1.0.6 swaps one byte in keys of interval concatenations: that does nothing.
                if let Some(chain) = &current
                    && !(code.starts_with("byteorder") && code.ends_with(", 2, 1)"))
                {
                    rules.entry(chain.clone()).or_insert_with(Vec::new).push(code);
                }
            }
            _ => current = None,
        }
    }
    rules
}

/// Without the flags of nat that say whether an address and a port are given. nft sends them or not by how it came to
/// the rule, the kernel sets them anyway, and the registers say the same.
fn without_nat_flags(code: &str) -> String {
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    match code.split_once(" flags 0x") {
        Some((head, bits)) if ["nat ", "masq", "redir"].iter().any(|name| head.starts_with(name)) => {
            match u32::from_str_radix(bits, 16).unwrap() & !3 {
                0 => head.to_owned(),
                bits => format!("{head} flags {bits:#x}"),
            }
        }
        _ => code,
    }
}

#[test]
fn our_expressions_and_the_text_of_nft_are_the_same_bytecode() {
    need_root!();
    private_namespace(|| {
        nft::load(&ruleset_text("theirs"));
        Kernel::open().unwrap().run(&ruleset("ours").creation()).unwrap();
        let (theirs, ours) = (listed("theirs"), listed("ours"));
        let mut differences = String::new();
        for (number, case) in cases().iter().enumerate() {
            let chain = format!("case{number}");
            assert!(!theirs[&chain].is_empty());
            if theirs[&chain] != ours[&chain] {
                differences +=
                    &format!("{}\n  nft:  {:?}\n  ours: {:?}\n", case.text, theirs[&chain], ours[&chain]);
            }
        }
        assert!(differences.is_empty(), "\n{differences}");
    });
}

#[test]
fn what_nft_loaded_is_dumped_and_printed_as_our_expressions() {
    need_root!();
    private_namespace(|| {
        let sent = bytecode(&nft::debug(&ruleset_text("theirs")), "theirs");
        nft::load(&ruleset_text("theirs"));
        let dump = Kernel::open().unwrap().dump(&Table::new(Family::Inet, "theirs")).unwrap().unwrap();
        let wanted = ruleset("theirs");
        for (number, case) in cases().iter().enumerate() {
            let chain = format!("case{number}");
            let mut rule = dump.find_chain(&chain).unwrap().rules[0].clone();
            let noop = |one: &portolan_nft::Expression| matches!(one, portolan_nft::Expression::Byteorder(byteorder) if byteorder.length == 1);
            rule.expressions.retain(|one| !noop(one));
            assert!(rule.means(&wanted.find_chain(&chain).unwrap().rules[0]), "{}:\n{rule:#?}", case.text);
            let printed: Vec<_> =
                rule.expressions.iter().map(|one| without_nat_flags(&one.to_string())).collect();
            let theirs: Vec<_> = sent[&chain].iter().map(|code| without_nat_flags(code)).collect();
            assert_eq!(printed, theirs, "{}", case.text);
        }
    });
}

#[test]
fn our_sets_are_dumped_as_nft_declares_them() {
    need_root!();
    private_namespace(|| {
        nft::load(&ruleset_text("theirs"));
        let mut dump = Kernel::open().unwrap().dump(&Table::new(Family::Inet, "theirs")).unwrap().unwrap();
        let mut wanted = ruleset("theirs");
        dump.sort();
        wanted.sort();
        for (theirs, ours) in dump.sets.iter().zip(&wanted.sets) {
            assert_eq!(theirs, ours);
        }
        assert_eq!(dump.sets.len(), wanted.sets.len());
    });
}
