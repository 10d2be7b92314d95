//! Tables, chains and sets: made, dumped, removed, counted.

use portolan_nft::{
    Chain, ChainKind, DataType, Error, Family, Nft, Policy, Rule, Set, Table, Transaction, Verb,
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
