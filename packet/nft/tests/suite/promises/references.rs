//! What refers to what: missing, busy, in a circle, of the wrong kind.

use portolan_nft::{Chain, Error, Family, Nft, Rule, Selector, Transaction, Verdict, matches, statement};

use crate::objects::*;

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
    // Nor may another kind of chain lead to it.
    let error = run(nft, |all| {
        all.add_table().add(forward()).add(Chain::regular("c")).add(Rule::new("forward").jump("c"));
        all.add(Rule::new("c").then(statement::masquerade(portolan_nft::NatFlags::NONE)));
    })
    .unwrap_err();
    assert_eq!(error.errno(), Some(95), "{error}");
    assert_eq!(nft.tables().unwrap(), []);
}
