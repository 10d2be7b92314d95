//! The committer on tables in memory: which change fails, and what is left.

use portolan_model::{PortRange, Protocol};
use portolan_nft::{Fake, Object, Ruleset};

use super::*;

const EINVAL: i32 = 22;
const ENOENT: i32 = 2;

fn port(host: u16) -> Mapping {
    Mapping {
        protocol: Protocol::Udp,
        address: None,
        host: PortRange::single(host).unwrap(),
        container: 7777,
        v4: Some([10, 213, 0, 2].into()),
        v6: None,
    }
}

fn committer<N: Nft>(nft: N, hosts: &[u16]) -> Committer<N> {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    hosts.iter().for_each(|&host| drop(plan.add(&port(host)).unwrap()));
    let mut committer =
        Committer { plan, nft, stats: Arc::default(), ledger: Arc::default(), uncounted: false };
    committer.compare().unwrap();
    committer
}

/// Changes that only add, one mapping each.
fn add<N: Nft>(committer: &mut Committer<N>, hosts: &[u16]) -> Vec<Result<(), ApplyError>> {
    let mappings: Vec<Mapping> = hosts.iter().map(|&host| port(host)).collect();
    let changes = mappings.iter().map(|mapping| (&[][..], std::slice::from_ref(mapping)));
    committer.commit(changes, &mut Touched::default())
}

#[track_caller]
fn assert_holds<N: Nft>(committer: &mut Committer<N>, hosts: &[u16]) {
    let mut want = Plan::new(PlanConfig::default()).unwrap();
    hosts.iter().for_each(|&host| drop(want.add(&port(host)).unwrap()));
    assert_eq!(committer.plan.ruleset(), want.ruleset());
    let have = committer.nft.dump(&want.table()).unwrap();
    assert!(diff(have.as_ref(), &want.ruleset()).is_empty());
    assert_eq!(committer.stats.lock().mappings, hosts.len());
}

/// Refuses every transaction that names this port.
struct Grudge {
    fake: Fake,
    against: u16,
}

impl Nft for Grudge {
    fn run(&mut self, transaction: &Transaction) -> Result<(), portolan_nft::Error> {
        let bytes = self.against.to_be_bytes();
        let named = transaction.operations.iter().any(|operation| match &operation.object {
            Object::Elements(elements) => elements
                .elements
                .iter()
                .any(|element| element.key.as_bytes().windows(2).any(|part| part == bytes)),
            _ => false,
        });
        if named {
            self.fake.refuse_next(EINVAL);
        }
        self.fake.run(transaction)
    }

    fn dump(&mut self, table: &portolan_nft::Table) -> Result<Option<Ruleset>, portolan_nft::Error> {
        self.fake.dump(table)
    }

    fn dump_shape(&mut self, table: &portolan_nft::Table) -> Result<Option<Ruleset>, portolan_nft::Error> {
        self.fake.dump_shape(table)
    }

    fn elements(
        &mut self,
        table: &portolan_nft::Table,
        set: &portolan_nft::Set,
    ) -> Result<Vec<portolan_nft::Element>, portolan_nft::Error> {
        self.fake.elements(table, set)
    }

    fn tables(&mut self) -> Result<Vec<portolan_nft::Table>, portolan_nft::Error> {
        self.fake.tables()
    }

    fn generation(&mut self) -> Result<u32, portolan_nft::Error> {
        self.fake.generation()
    }
}

#[test]
fn changes_that_come_together_are_written_together() {
    let mut committer = committer(Fake::new(), &[]);
    let before = committer.nft.generation().unwrap();
    let answers = add(&mut committer, &[20001, 20002, 20003]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(committer.nft.generation().unwrap(), before + 1);
    assert_holds(&mut committer, &[20001, 20002, 20003]);
}

#[test]
fn only_the_guilty_one_of_several_fails() {
    let mut committer = committer(Grudge { fake: Fake::new(), against: 20002 }, &[]);
    let answers = add(&mut committer, &[20001, 20002, 20003]);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Err(ApplyError::Kernel { .. })), "{answers:?}");
    assert_holds(&mut committer, &[20001, 20003]);
    let stats = committer.stats.lock();
    assert_eq!((stats.adds, stats.refused), (2, 1));
}

#[test]
fn a_change_that_contradicts_an_earlier_one_of_the_burst_fails_alone() {
    let mut committer = committer(Fake::new(), &[]);
    let answers = add(&mut committer, &[20001, 20001, 20002]);
    assert!(matches!(answers[1], Err(ApplyError::Plan(PlanError::Overlap { .. }))), "{answers:?}");
    assert_holds(&mut committer, &[20001, 20002]);
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let mut committer = committer(Fake::new(), &[20001, 20002]);
    committer.nft.refuse_next(EINVAL);
    let (keys, new) = ([port(20001).key()], [port(20009)]);
    let answers = committer.commit([(&keys[..], &new[..])], &mut Touched::default());
    assert!(matches!(answers[..], [Err(ApplyError::Kernel { .. })]), "{answers:?}");
    assert_holds(&mut committer, &[20001, 20002]);
}

#[test]
fn a_table_that_vanished_is_written_again_with_the_change() {
    let mut committer = committer(Fake::new(), &[20001]);
    committer.nft.flush_ruleset();
    assert!(add(&mut committer, &[20002])[0].is_ok());
    assert_holds(&mut committer, &[20001, 20002]);
    assert_eq!(committer.stats.lock().repairs, 1);
}

#[test]
fn an_element_that_vanished_does_not_hinder_its_removal() {
    let mut committer = committer(Fake::new(), &[20001, 20002]);
    let host = committer.plan.ruleset().find_set("host_v4").unwrap().clone();
    let mut theft = Transaction::new(committer.plan.table());
    theft.delete_elements(&host.set, [host.elements[0].clone()]);
    committer.nft.run(&theft).unwrap();
    let keys = [port(20001).key()];
    let answers = committer.commit([(&keys[..], &[][..])], &mut Touched::default());
    assert!(answers[0].is_ok(), "{answers:?}");
    assert_holds(&mut committer, &[20002]);
}

#[test]
fn a_kernel_that_refuses_even_the_repair_fails_the_change_and_nothing_else() {
    let mut committer = committer(Grudge { fake: Fake::new(), against: 20002 }, &[20001]);
    committer.nft.fake.flush_ruleset();
    committer.nft.fake.refuse_next(ENOENT);
    assert!(add(&mut committer, &[20002])[0].is_err());
    // The table is still gone; the next comparison brings it back.
    committer.compare().unwrap();
    assert_holds(&mut committer, &[20001]);
}

/// A kernel that cannot count in elements.
struct Old(Fake);

impl Nft for Old {
    fn run(&mut self, transaction: &Transaction) -> Result<(), portolan_nft::Error> {
        let counts = |operation: &portolan_nft::Operation| matches!(&operation.object, Object::Set(set) if set.counter && operation.verb == portolan_nft::Verb::Add);
        if transaction.operations.iter().any(counts) {
            self.0.refuse_next(EINVAL);
        }
        self.0.run(transaction)
    }

    fn dump(&mut self, table: &portolan_nft::Table) -> Result<Option<Ruleset>, portolan_nft::Error> {
        self.0.dump(table)
    }

    fn dump_shape(&mut self, table: &portolan_nft::Table) -> Result<Option<Ruleset>, portolan_nft::Error> {
        self.0.dump_shape(table)
    }

    fn elements(
        &mut self,
        table: &portolan_nft::Table,
        set: &portolan_nft::Set,
    ) -> Result<Vec<portolan_nft::Element>, portolan_nft::Error> {
        self.0.elements(table, set)
    }

    fn tables(&mut self) -> Result<Vec<portolan_nft::Table>, portolan_nft::Error> {
        self.0.tables()
    }

    fn generation(&mut self) -> Result<u32, portolan_nft::Error> {
        self.0.generation()
    }
}

#[test]
fn a_kernel_that_cannot_count_forwards_all_the_same() {
    let config = PlanConfig { counting: Counting::Traffic, ..PlanConfig::any() };
    let plan = Plan::with(config, &[port(20001)]).unwrap();
    let mut committer = Committer {
        plan,
        nft: Old(Fake::new()),
        stats: Arc::default(),
        ledger: Arc::default(),
        uncounted: false,
    };
    committer.compare_or_count_less().unwrap();
    assert_eq!(committer.plan.config().counting, Counting::Off);
    assert!(add(&mut committer, &[20002])[0].is_ok());
    let have = committer.nft.dump(&committer.plan.table()).unwrap();
    assert!(diff(have.as_ref(), &committer.plan.ruleset()).is_empty());
    // Asked for again at run time, it is not tried again.
    let before = committer.plan.ruleset();
    let config = PlanConfig { counting: Counting::Connections, ..PlanConfig::any() };
    assert!(committer.reconfigure(config).unwrap().is_empty());
    assert_eq!(committer.plan.ruleset(), before);
}

#[test]
fn what_fails_for_another_reason_is_told_and_not_counted_less() {
    let config = PlanConfig { counting: Counting::Traffic, ..PlanConfig::any() };
    let plan = Plan::new(config).unwrap();
    let mut nft = Fake::new();
    nft.refuse_next(1); // EPERM
    let mut committer =
        Committer { plan, nft, stats: Arc::default(), ledger: Arc::default(), uncounted: false };
    assert!(committer.compare_or_count_less().is_err());
    assert_eq!(committer.plan.config().counting, Counting::Traffic);
}
