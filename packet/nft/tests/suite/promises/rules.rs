//! Rules: order, replacement, handles.

use portolan_nft::{Chain, Error, Nft, Rule, Ruleset};

use crate::objects::*;

fn comments(ruleset: &Ruleset, chain: &str) -> Vec<String> {
    let rules = &ruleset.find_chain(chain).unwrap().rules;
    rules.iter().map(|rule| rule.comment.clone().unwrap_or_default()).collect()
}

pub(crate) fn rules_keep_the_order_they_were_given(nft: &mut dyn Nft) {
    let rule = |comment: &str| Rule::new("c").accept().comment(comment);
    run(nft, |all| {
        all.add_table().add(Chain::regular("c")).add(rule("b")).add(rule("d")).insert(rule("a"));
    })
    .unwrap();
    let b = dump(nft).find_chain("c").unwrap().rules[1].handle;
    run(nft, |all| {
        all.add(Rule { position: b, ..rule("c") });
        all.insert(Rule { position: b, ..rule("aa") });
    })
    .unwrap();
    assert_eq!(comments(&dump(nft), "c"), ["a", "aa", "b", "c", "d"]);
}

pub(crate) fn a_rule_is_replaced_in_its_place(nft: &mut dyn Nft) {
    let rule = |comment: &str| Rule::new("c").accept().comment(comment);
    run(nft, |all| {
        all.add_table().add(Chain::regular("c")).add(rule("a")).add(rule("b")).add(rule("c"));
    })
    .unwrap();
    let handle = dump(nft).find_chain("c").unwrap().rules[1].handle;
    run(nft, |all| {
        all.replace(Rule { handle, ..rule("x") });
    })
    .unwrap();
    assert_eq!(comments(&dump(nft), "c"), ["a", "x", "c"]);
}

pub(crate) fn a_rule_without_a_handle_is_not_deleted(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(Chain::regular("c")).add(Rule::new("c").accept());
    })
    .unwrap();
    let error = run(nft, |all| {
        all.delete(Rule::new("c").accept());
    })
    .unwrap_err();
    assert!(matches!(error, Error::Invalid { index: 0, .. }), "{error}");
    assert_eq!(dump(nft).find_chain("c").unwrap().rules.len(), 1);
}
