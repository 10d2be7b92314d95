//! Random histories: the kernel and the fake accept and refuse the same transactions, and dump the same table.

use portolan_nft::{
    Chain, Element, Error, Fake, Kernel, Nft, Rule, Selector, Set, Transaction, Verdict, statement,
};
use portolan_testkit::{need_root, net::private_namespace};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::objects::{assert_same, block, blocks, forward, leads, port, ports, run, table, verdicts};

/// One step, of few enough objects that steps meet each other.
#[derive(Clone, Debug)]
enum Step {
    Table(u8),
    Chain(u8, u8),
    Jump(u8, u8),
    Lookup(u8),
    RemoveRule(u8, u8),
    Set(u8, u8),
    Port(u8, u16),
    Block(u8, u16, u16),
    Leads(u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let verb = 0..5_u8;
    prop_oneof![
        1 => (0..3_u8).prop_map(Step::Table),
        4 => (verb.clone(), 0..4_u8).prop_map(|(v, c)| Step::Chain(v, c)),
        3 => (0..4_u8, 0..5_u8).prop_map(|(from, to)| Step::Jump(from, to)),
        2 => (0..4_u8).prop_map(Step::Lookup),
        2 => (0..4_u8, 0..3_u8).prop_map(|(c, at)| Step::RemoveRule(c, at)),
        3 => (verb.clone(), 0..3_u8).prop_map(|(v, s)| Step::Set(v, s)),
        4 => (verb.clone(), 0..4_u16).prop_map(|(v, p)| Step::Port(v, p)),
        // Without destroy, which for these looks at what is there before the transaction: see `kernel/destroy.rs`.
        6 => (prop_oneof![Just(0_u8), Just(1), Just(3)], 0..40_u16, 0..6_u16).prop_map(|(v, first, more)| Step::Block(v, first, first + more)),
        4 => (verb, 0..3_u8, 0..5_u8).prop_map(|(v, key, chain)| Step::Leads(v, key, chain)),
    ]
}

fn name(chain: u8) -> String {
    format!("c{chain}")
}

fn set(number: u8) -> Set {
    [ports(), blocks(), verdicts()][usize::from(number)].clone()
}

/// Writes the step. `nft` tells the handles of rules, which the kernel and the fake count differently.
fn write(all: &mut Transaction, step: &Step, nft: &mut dyn Nft) {
    // Chain 0 is called by the kernel.
    let chain = |number: u8| {
        if number == 0 { Chain { name: name(0), ..forward() } } else { Chain::regular(name(number)) }
    };
    let elements = |all: &mut Transaction, verb: u8, set: Set, element| {
        match verb {
            0 => all.add_elements(&set, [element]),
            1 => all.create_elements(&set, [element]),
            2 => all.destroy_elements(&set, [element]),
            _ => all.delete_elements(&set, [element]),
        };
    };
    let object = |all: &mut Transaction, verb: u8, object: portolan_nft::Object| {
        match verb {
            0 => all.add(object),
            1 => all.create(object),
            2 => all.destroy(object),
            3 => all.flush(object),
            _ => all.delete(object),
        };
    };
    match *step {
        Step::Table(verb) => object(all, [0, 0, 3][usize::from(verb)], portolan_nft::Object::Table),
        Step::Chain(verb, number) => object(all, verb, chain(number).into()),
        Step::Jump(from, to) => _ = all.add(Rule::new(name(from)).jump(name(to))),
        Step::Lookup(from) => {
            _ = all
                .add(Rule::new(name(from)).then(statement::verdict_map(&[Selector::IpSource], "verdicts")));
        }
        Step::RemoveRule(from, at) => {
            let dump = nft.dump(&table()).unwrap();
            let rules = dump.and_then(|dump| Some(dump.find_chain(&name(from))?.rules.clone()));
            let handle = rules.and_then(|rules| rules.get(usize::from(at))?.handle);
            _ = all.delete(Rule::with_handle(name(from), handle.unwrap_or(9_999)));
        }
        Step::Set(verb, number) => object(all, verb, set(number).into()),
        Step::Port(verb, number) => elements(all, verb, ports(), port(number)),
        Step::Block(verb, first, last) => {
            // Who deletes an interval names it exactly: the kernel would take the halves of two. And who adds one
            // may not end where a shorter one ends: the kernel would let the shorter one's end stand for both.
            let wanted = block(first, last);
            let dump = nft.dump(&table()).unwrap();
            let set = dump.as_ref().and_then(|dump| dump.find_set("blocks"));
            let same = |one: &&Element| match verb {
                0 | 1 => one.last() == wanted.last(),
                _ => one.key == wanted.key,
            };
            let exact = set.and_then(|set| set.elements.iter().find(same)).cloned();
            elements(all, verb, blocks(), exact.unwrap_or(wanted));
        }
        Step::Leads(verb, key, to) => {
            let verdict = if to == 0 { Verdict::Accept } else { Verdict::goto(name(to)) };
            elements(all, verb, verdicts(), leads(key, verdict));
        }
    }
}

/// What both must agree on. Loops are found by the kernel at once or at the end, by its version.
fn outcome(result: Result<(), Error>) -> Option<(Option<i32>, Option<usize>)> {
    let error = result.err()?;
    match error.errno() {
        Some(31 | 40) => Some((Some(31), None)),
        errno => Some((errno, error.index())),
    }
}

#[test]
fn the_fake_and_the_kernel_agree_on_any_history() {
    need_root!();
    let config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
    let histories = prop::collection::vec(prop::collection::vec(step(), 1..4), 1..30);
    // One namespace for all: making one takes longer than a history.
    private_namespace(|| TestRunner::new(config).run(&histories, |history| agree(&history)).unwrap());
}

fn agree(history: &[Vec<Step>]) -> Result<(), TestCaseError> {
    let (mut kernel, mut fake) = (Kernel::open().unwrap(), Fake::new());
    run(&mut kernel, |all| _ = all.destroy_table()).unwrap();
    let mut first = Transaction::new(table());
    first.add_table().add(ports()).add(blocks()).add(verdicts());
    for number in 0..4 {
        write(&mut first, &Step::Chain(0, number), &mut fake);
    }
    kernel.run(&first).unwrap();
    fake.run(&first).unwrap();
    for steps in history {
        // What `write` says of intervals it can see only between transactions: one of them in each is enough.
        let mut blocks = 0;
        let mut steps = steps.clone();
        steps.retain(|step| !matches!(step, Step::Block(..)) || std::mem::replace(&mut blocks, 1) == 0);
        let both = [&mut kernel as &mut dyn Nft, &mut fake].map(|nft| {
            let mut all = Transaction::new(table());
            steps.iter().for_each(|step| write(&mut all, step, nft));
            outcome(nft.run(&all))
        });
        prop_assert_eq!(&both[0], &both[1], "kernel and fake at {:?}", steps);
        match (kernel.dump(&table()).unwrap(), fake.dump(&table()).unwrap()) {
            (Some(one), Some(two)) => assert_same(one, two),
            (one, two) => prop_assert_eq!(one, two),
        }
    }
    Ok(())
}
