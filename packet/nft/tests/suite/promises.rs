//! What every [`Nft`] promises. Each begins with no table.

use std::time::Duration;

use portolan_nft::{
    Chain, ChainKind, Data, DataType, Element, Elements, Error, Family, Nft, Policy, Rule, Ruleset, Selector,
    Set, Table, Transaction, Verb, Verdict, matches, statement,
};

use crate::objects::*;

pub(crate) fn a_table_that_is_not_there_dumps_as_none(nft: &mut dyn Nft) {
    assert_eq!(nft.dump(&table()).unwrap(), None);
    assert_eq!(nft.tables().unwrap(), []);
}

pub(crate) fn what_was_created_is_dumped_the_same(nft: &mut dyn Nft) {
    let wanted = everything();
    nft.run(&wanted.creation()).unwrap();
    assert_same(dump(nft), wanted);
}

pub(crate) fn an_empty_transaction_changes_nothing(nft: &mut dyn Nft) {
    let before = nft.generation().unwrap();
    run(nft, |_| {}).unwrap();
    assert_eq!(nft.generation().unwrap(), before);
}

pub(crate) fn a_refused_step_is_named_and_nothing_is_done(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    let before = dump(nft);
    let error = run(nft, |all| {
        all.add(Chain::regular("new")).add_elements(&ports(), [port(1)]);
        all.create_elements(&ports(), [port(20_001)]);
        all.add(Chain::regular("newer"));
    })
    .unwrap_err();
    assert!(error.is_already_exists(), "{error}");
    assert_eq!(error.index(), Some(2), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("create element tcp . 20001 to map inet portolan ports: File exists"), "{text}");
    assert_eq!(dump(nft), before);
}

pub(crate) fn creating_what_is_there_is_refused(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    for create in [
        &mut |all: &mut Transaction| all.push(Verb::Create, portolan_nft::Object::Table).is_empty(),
        &mut |all: &mut Transaction| all.create(Chain::regular("mapped")).is_empty(),
        &mut |all: &mut Transaction| all.create(ports()).is_empty(),
        &mut |all: &mut Transaction| all.create_elements(&ports(), [port(20_000)]).is_empty(),
    ] as [&mut dyn FnMut(&mut Transaction) -> bool; 4]
    {
        let error = run(nft, |all| {
            create(all);
        })
        .unwrap_err();
        assert!(error.is_already_exists(), "{error}");
        assert_eq!(error.index(), Some(0));
    }
}

pub(crate) fn adding_what_is_there_is_fine(nft: &mut dyn Nft) {
    let wanted = everything();
    nft.run(&wanted.creation()).unwrap();
    run(nft, |all| {
        all.add_table()
            .add(Chain::regular("mapped"))
            .add(prerouting())
            .add(ports())
            .add(blocks())
            .add(ranges());
        all.add_elements(&ports(), [port(20_000)]);
        all.add_elements(&blocks(), [block(21_000, 21_099)]);
        all.add_elements(&ranges(), [range(6, 1, 1023)]);
    })
    .unwrap();
    assert_same(dump(nft), wanted);
}

pub(crate) fn deleting_what_is_not_there_is_refused(nft: &mut dyn Nft) {
    #[track_caller]
    fn absent(result: Result<(), Error>) {
        let error = result.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    absent(run(nft, |all| {
        all.delete_table();
    }));
    nft.run(&everything().creation()).unwrap();
    absent(run(nft, |all| {
        all.delete(Chain::regular("nowhere"));
    }));
    absent(run(nft, |all| {
        all.delete(Set::new("nothing", [DataType::Mark]));
    }));
    absent(run(nft, |all| {
        all.delete(Rule::with_handle("mapped", 4711));
    }));
    absent(run(nft, |all| {
        all.delete_elements(&ports(), [port(1)]);
    }));
    absent(run(nft, |all| {
        all.delete_elements(&blocks(), [block(21_000, 21_050)]);
    }));
    absent(run(nft, |all| {
        // Not 6 . 1-1000: the kernel looks for the first key only in such sets, and would delete 6 . 1-1023.
        all.delete_elements(&ranges(), [range(6, 2000, 2001)]);
    }));
}

pub(crate) fn destroying_what_is_not_there_is_fine(nft: &mut dyn Nft) {
    let before = nft.generation().unwrap();
    run(nft, |all| {
        all.destroy_table();
    })
    .unwrap();
    assert_eq!(nft.generation().unwrap(), before);
    nft.run(&everything().creation()).unwrap();
    run(nft, |all| {
        all.destroy(Chain::regular("nowhere"))
            .destroy(Set::new("nothing", [DataType::Mark]))
            .destroy(Rule::with_handle("mapped", 4711))
            .destroy_elements(&ports(), [port(1), port(2)])
            .destroy_elements(&blocks(), [block(1, 2)])
            .destroy_elements(&ranges(), [range(6, 2000, 2001)]);
    })
    .unwrap();
    assert_same(dump(nft), everything());
}

pub(crate) fn destroying_removes_what_is_there(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    let handle = dump(nft).find_chain("forward").unwrap().rules[0].handle.unwrap();
    run(nft, |all| {
        all.destroy(postrouting())
            .destroy(Set::new("v6", [DataType::Ipv6Addr]))
            .destroy(Rule::with_handle("forward", handle))
            .destroy_elements(&ports(), [port(1), port(20_000)])
            .destroy_elements(&blocks(), [block(21_000, 21_099), block(1, 2)])
            .destroy_elements(&ranges(), [range(6, 1, 1023)]);
    })
    .unwrap();
    let now = dump(nft);
    assert!(now.find_chain("postrouting").is_none() && now.find_set("v6").is_none());
    assert_eq!(now.find_chain("forward").unwrap().rules.len(), 4);
    assert_eq!(now.find_set("ports").unwrap().elements.len(), 1);
    assert_eq!(now.find_set("blocks").unwrap().elements, [block(21_100, 21_100)]);
    assert_eq!(now.find_set("ranges").unwrap().elements, [range(17, 53, 53)]);
    run(nft, |all| {
        all.destroy_table();
    })
    .unwrap();
    assert_eq!(nft.dump(&table()).unwrap(), None);
}

pub(crate) fn a_missing_table_chain_or_set_is_not_found(nft: &mut dyn Nft) {
    let chain = || Chain::regular("c");
    let lookup = || Rule::new("c").then(matches::in_set(&[Selector::Mark], "nothing"));
    let leads_nowhere = || leads(1, Verdict::jump("nowhere"));
    // The last step of each lacks something that the steps before do not bring.
    let cases: [&dyn Fn(&mut Transaction); 6] = [
        &|all| _ = all.add(chain()),
        &|all| _ = all.add_table().add(Rule::new("nowhere").accept()),
        &|all| _ = all.add_table().add(chain()).add(Rule::new("c").jump("nowhere")),
        &|all| _ = all.add_table().add(chain()).add(lookup()),
        &|all| _ = all.add_table().add_elements(&ports(), [port(1)]),
        &|all| _ = all.add_table().add(verdicts()).add_elements(&verdicts(), [leads_nowhere()]),
    ];
    for (number, case) in cases.iter().enumerate() {
        let mut transaction = Transaction::new(table());
        case(&mut transaction);
        let error = nft.run(&transaction).unwrap_err();
        assert!(error.is_not_found(), "case {number}: {error}");
        assert_eq!(error.index(), Some(transaction.operations.len() - 1), "case {number}: {error}");
    }
    assert_eq!(nft.tables().unwrap(), []);
}

#[track_caller]
fn busy(result: Result<(), Error>) {
    let error = result.unwrap_err();
    assert!(error.is_busy(), "{error}");
}

pub(crate) fn a_chain_that_is_jumped_to_is_busy(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table()
            .add(Chain::regular("one"))
            .add(Chain::regular("two"))
            .add(Rule::new("one").jump("two"));
    })
    .unwrap();
    busy(run(nft, |all| {
        all.delete(Chain::regular("two"));
    }));
    // In the same transaction, once nobody jumps there any more.
    run(nft, |all| {
        all.flush(Chain::regular("one")).delete(Chain::regular("two"));
    })
    .unwrap();
    assert_eq!(dump(nft).chains.len(), 1);
}

pub(crate) fn a_chain_that_a_verdict_map_leads_to_is_busy(nft: &mut dyn Nft) {
    let element = leads(1, Verdict::goto("two"));
    run(nft, |all| {
        all.add_table().add(Chain::regular("two")).add(verdicts());
        all.add_elements(&verdicts(), [element.clone()]);
    })
    .unwrap();
    busy(run(nft, |all| {
        all.delete(Chain::regular("two"));
    }));
    run(nft, |all| {
        all.delete_elements(&verdicts(), [element]).delete(Chain::regular("two"));
    })
    .unwrap();
    assert_eq!(dump(nft).chains, []);
}

pub(crate) fn a_set_that_a_rule_looks_into_is_busy(nft: &mut dyn Nft) {
    let rule = Rule::new("c").then(statement::verdict_map(&[Selector::IpSource], "verdicts"));
    run(nft, |all| {
        all.add_table().add(Chain::regular("c")).add(verdicts()).add(rule);
    })
    .unwrap();
    busy(run(nft, |all| {
        all.delete(verdicts());
    }));
    run(nft, |all| {
        all.flush(Chain::regular("c")).delete(verdicts());
    })
    .unwrap();
    assert_eq!(dump(nft).sets, []);
}

pub(crate) fn a_chain_goes_with_its_own_rules(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(Chain::regular("c")).add(Rule::new("c").accept());
    })
    .unwrap();
    run(nft, |all| {
        all.delete(Chain::regular("c"));
    })
    .unwrap();
    assert_eq!(dump(nft).chains, []);
}

pub(crate) fn nobody_may_jump_to_a_chain_of_the_kernel(nft: &mut dyn Nft) {
    let error = run(nft, |all| {
        all.add_table().add(forward()).add(Chain::regular("c")).add(Rule::new("c").jump("forward"));
    })
    .unwrap_err();
    assert_eq!((error.errno(), error.index()), (Some(95), Some(3)), "{error}");
}

pub(crate) fn jumps_in_a_circle_are_refused(nft: &mut dyn Nft) {
    let error = run(nft, |all| {
        all.add_table().add(forward()).add(Chain::regular("one")).add(Chain::regular("two"));
        all.add(Rule::new("forward").jump("one"))
            .add(Rule::new("one").jump("two"))
            .add(Rule::new("two").jump("one"));
    })
    .unwrap_err();
    assert!(matches!(error.errno(), Some(31 | 40)), "{error}");
    assert_eq!(nft.tables().unwrap(), []);
}

pub(crate) fn a_lookup_must_fit_its_set(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(prerouting()).add(ports()).add(verdicts()).add(ranges());
    })
    .unwrap();
    let front = [Selector::L4Proto, Selector::DestinationPort];
    for wrong in [
        statement::verdict_map(&front, "ports"),
        statement::verdict_map(&front, "ranges"),
        statement::dnat_map(Family::Ip, &[Selector::IpSource], "verdicts"),
        statement::dnat_map(Family::Ip, &front, "ranges"),
    ] {
        let error = run(nft, |all| {
            all.add(Rule::new("prerouting").then(wrong));
        })
        .unwrap_err();
        assert_eq!((error.errno(), error.index()), (Some(22), Some(0)), "{error}");
    }
}

pub(crate) fn nat_belongs_into_nat_chains(nft: &mut dyn Nft) {
    let error = run(nft, |all| {
        all.add_table().add(forward());
        all.add(Rule::new("forward").then(statement::masquerade(portolan_nft::NatFlags::NONE)));
    })
    .unwrap_err();
    assert_eq!((error.errno(), error.index()), (Some(95), Some(2)), "{error}");
}

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

pub(crate) fn flushing_empties_chains_sets_and_tables(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    run(nft, |all| {
        all.flush(Chain::regular("mapped")).flush(ports()).flush(blocks()).flush(ranges());
    })
    .unwrap();
    let now = dump(nft);
    assert_eq!(now.find_chain("mapped").unwrap().rules, []);
    assert!(["ports", "blocks", "ranges"].iter().all(|name| now.find_set(name).unwrap().elements.is_empty()));
    assert_eq!(now.find_chain("prerouting").unwrap().rules.len(), 2);
    run(nft, |all| {
        all.push(Verb::Flush, portolan_nft::Object::Table);
    })
    .unwrap();
    let now = dump(nft);
    assert!(now.chains.iter().all(|filled| filled.rules.is_empty()));
    assert_eq!(now.find_set("verdicts").unwrap().elements.len(), 3);
}

pub(crate) fn an_element_with_another_value_is_refused(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    let other = Data::new().ipv4([10, 9, 9, 9].into()).port(1);
    let error = run(nft, |all| {
        all.add_elements(&ports(), [port(20_000).value(other.clone())]);
    })
    .unwrap_err();
    // Which of the two depends on the kernel's version.
    assert!(error.is_already_exists() || error.is_busy(), "{error}");
    // Replacing it is deleting and adding, at once.
    run(nft, |all| {
        all.delete_elements(&ports(), [port(20_000)])
            .add_elements(&ports(), [port(20_000).value(other.clone())]);
    })
    .unwrap();
    let now = dump(nft);
    assert_eq!(now.find_set("ports").unwrap().elements[0], port(20_000).value(other));
}

pub(crate) fn a_full_set_takes_no_more(nft: &mut dyn Nft) {
    let set = Set::new("small", [DataType::InetService]).size(2);
    let element = |port: u16| Element::new(Data::new().port(port));
    run(nft, |all| {
        all.add_table().add(set.clone()).add_elements(&set, [element(1), element(2)]);
    })
    .unwrap();
    let error = run(nft, |all| {
        all.add_elements(&set, [element(3)]);
    })
    .unwrap_err();
    assert_eq!(error.errno(), Some(23), "{error}");
}

pub(crate) fn overlapping_intervals_are_refused(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), [block(100, 200)]);
    })
    .unwrap();
    for (first, last) in [(150, 250), (50, 100), (120, 130), (50, 250), (200, 200), (100, 150), (150, 200)] {
        let error = run(nft, |all| {
            all.add_elements(&blocks(), [block(first, last)]);
        })
        .unwrap_err();
        assert!(error.is_already_exists(), "{first}-{last}: {error}");
        assert_eq!(error.index(), Some(0));
    }
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, [block(100, 200)]);
}

pub(crate) fn overlapping_concatenated_intervals_are_refused(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ranges()).add_elements(&ranges(), [range(6, 100, 200), range(17, 100, 200)]);
    })
    .unwrap();
    // Not 50-250: kernels up to 6.18 take an interval that goes around one that is there (the fake does not).
    for (first, last) in [(150, 250), (50, 100), (120, 130)] {
        let error = run(nft, |all| {
            all.add_elements(&ranges(), [range(6, first, last)]);
        })
        .expect_err(&format!("{first}-{last}"));
        assert!(error.is_already_exists(), "{first}-{last}: {error}");
    }
    run(nft, |all| {
        all.add_elements(&ranges(), [range(132, 150, 250), range(6, 201, 201)]);
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("ranges").unwrap().elements.len(), 4);
}

pub(crate) fn neighbouring_intervals_are_kept_apart(nft: &mut dyn Nft) {
    let all_of_them = [block(10, 19), block(20, 29), block(30, 30), block(31, 31), block(40, 49)];
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), all_of_them.clone());
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, all_of_them);
    run(nft, |all| {
        all.delete_elements(&blocks(), [block(20, 29), block(31, 31)]);
    })
    .unwrap();
    let left = [block(10, 19), block(30, 30), block(40, 49)];
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, left);
}

pub(crate) fn intervals_reach_to_both_ends(nft: &mut dyn Nft) {
    let both = [block(0, 9), block(65_000, 65_535)];
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), both.clone());
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, both);
    run(nft, |all| {
        all.delete_elements(&blocks(), both).add_elements(&blocks(), [block(0, 65_535)]);
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, [block(0, 65_535)]);
}

pub(crate) fn elements_of_the_wrong_length_are_not_sent(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ports()).add(verdicts());
    })
    .unwrap();
    let key = Data::new().protocol(6).port(1);
    for wrong in [
        Element::new(Data::new().port(1)),
        Element::new(key.clone()),
        Element::new(key.clone()).verdict(Verdict::Accept),
        Element::new(key.clone()).value(Data::new().port(1)),
        Element::interval(key.clone(), Data::new().protocol(6).port(2)),
    ] {
        let error = run(nft, |all| {
            all.add_elements(&ports(), [port(1), wrong]);
        })
        .unwrap_err();
        let Error::Invalid { index: 0, why, .. } = &error else { panic!("{error}") };
        assert!(why.starts_with("element 1: "), "{why}");
    }
}

pub(crate) fn a_policy_can_change_but_a_hook_cannot(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(forward());
    })
    .unwrap();
    run(nft, |all| {
        all.add(forward().policy(Policy::Drop));
    })
    .unwrap();
    assert_eq!(dump(nft).chains[0].chain, forward().policy(Policy::Drop));
    let moved = Chain::base("forward", ChainKind::Filter, portolan_nft::Hook::Input, 0);
    let error = run(nft, |all| {
        all.add(moved);
    })
    .unwrap_err();
    // EEXIST or EOPNOTSUPP, by the kernel's version.
    assert_eq!(error.index(), Some(0), "{error}");
}

pub(crate) fn timeouts_need_a_set_that_has_them(nft: &mut dyn Nft) {
    let hour = Duration::from_secs(3600);
    let lasting = Set::new("lasting", [DataType::InetService]);
    let fading = Set::new("fading", [DataType::InetService]).timeouts();
    let by_default = Set::new("by_default", [DataType::InetService]).timeout(hour);
    let element = || Element::new(Data::new().port(1));
    run(nft, |all| {
        all.add_table().add(lasting.clone()).add(fading.clone()).add(by_default.clone());
        all.add_elements(&fading, [element().timeout(hour), Element::new(Data::new().port(2))]);
        all.add_elements(&by_default, [element(), Element::new(Data::new().port(2)).timeout(hour * 2)]);
    })
    .unwrap();
    let now = bare(dump(nft));
    let of = |name| now.find_set(name).unwrap().elements.iter().map(|one| one.timeout).collect::<Vec<_>>();
    assert_eq!(of("fading"), [Some(hour), None]);
    assert_eq!(of("by_default"), [None, Some(hour * 2)]);
    let error = run(nft, |all| {
        all.add_elements(&lasting, [element().timeout(hour)]);
    })
    .unwrap_err();
    assert_eq!(error.errno(), Some(22), "{error}");
}

pub(crate) fn comments_come_back(nft: &mut dyn Nft) {
    let set = ports().comment("a set's");
    run(nft, |all| {
        all.add_table().add(Chain::regular("c").comment("a chain's")).add(set.clone());
        all.add(Rule::new("c").accept().comment("a rule's: über"));
        all.add_elements(&set, [port(1).comment("an element's")]);
    })
    .unwrap();
    let now = dump(nft);
    assert_eq!(now.sets[0].set.comment.as_deref(), Some("a set's"));
    assert_eq!(now.sets[0].elements[0].comment.as_deref(), Some("an element's"));
    assert_eq!(now.chains[0].chain.comment.as_deref(), Some("a chain's"));
    assert_eq!(now.chains[0].rules[0].comment.as_deref(), Some("a rule's: über"));
}

pub(crate) fn the_generation_tells_of_changes(nft: &mut dyn Nft) {
    let first = nft.generation().unwrap();
    run(nft, |all| {
        all.add_table();
    })
    .unwrap();
    let second = nft.generation().unwrap();
    assert_ne!(first, second);
    run(nft, |all| {
        all.add(Chain::regular("c")).add(Rule::new("nowhere").accept());
    })
    .unwrap_err();
    dump(nft);
    assert_eq!(nft.generation().unwrap(), second);
}

pub(crate) fn tables_of_others_are_listed_and_left_alone(nft: &mut dyn Nft) {
    let others = Table::new(Family::Ip, "portolan");
    let mut transaction = Transaction::new(others.clone());
    transaction.add_table().add(Chain::regular("theirs"));
    nft.run(&transaction).unwrap();
    nft.run(&everything().creation()).unwrap();
    let tables = nft.tables().unwrap();
    assert!(tables[0].is(&table()) && tables[1].is(&others) && tables.len() == 2, "{tables:?}");
    assert!(dump(nft).find_chain("theirs").is_none());
    run(nft, |all| {
        all.delete_table();
    })
    .unwrap();
    assert_eq!(nft.dump(&others).unwrap().unwrap().chains.len(), 1);
}

pub(crate) fn twenty_thousand_elements_are_one_transaction(nft: &mut dyn Nft) {
    let elements: Vec<_> = (20_000..40_000).map(port).collect();
    run(nft, |all| {
        all.add_table().add(ports()).add_elements(&ports(), elements.clone());
    })
    .unwrap();
    let before = nft.generation().unwrap();
    assert_eq!(dump(nft).find_set("ports").unwrap().elements, elements);
    run(nft, |all| {
        all.delete_elements(&ports(), elements);
    })
    .unwrap();
    assert_eq!(nft.generation().unwrap(), before.wrapping_add(1));
    assert_eq!(dump(nft).find_set("ports").unwrap().elements, []);
}

pub(crate) fn the_refused_element_of_many_is_named(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ports()).add(blocks());
        all.add_elements(&ports(), [port(20_417)]).add_elements(&blocks(), [block(5_000, 5_009)]);
    })
    .unwrap();
    let error = run(nft, |all| {
        all.add(Chain::regular("c"));
        all.create_elements(&ports(), (10_000..30_000).map(port).collect::<Vec<_>>());
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("create element tcp . 20417 to map inet portolan ports: File exists"), "{text}");
    assert_eq!(error.index(), Some(1));
    let tens = (0..2_000).map(|at| block(at * 10 + 5, at * 10 + 9));
    let error = run(nft, |all| {
        all.add_elements(&blocks(), tens.collect::<Vec<_>>());
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("add element 5005-5009 to map inet portolan blocks: File exists"), "{text}");
    let wanted = Elements { set: ports(), elements: vec![port(1), port(20_417), port(2)] };
    let error = run(nft, |all| {
        all.delete(wanted);
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("delete element tcp . 1 from map inet portolan ports: No such file"), "{text}");
}
