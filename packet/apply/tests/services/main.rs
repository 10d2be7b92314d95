//! The table of Services in the real kernel: what it is after a start, changes, crashes and what others do to it.
#![allow(clippy::unwrap_used)]

mod changes;
mod connections;
mod crash;
mod history;
mod objects;
mod repair;
mod start;

use portolan_apply::ServicePlane;
use portolan_model::{EndpointSlice, Service};
use portolan_nft::{Kernel, Nft as _, Ruleset};
use portolan_services::{Services, ServicesConfig};

/// The table as the kernel has it, without what the kernel counts; of sets that packets fill only the declaration.
fn in_kernel() -> Option<Ruleset> {
    let table = Services::new(ServicesConfig::default()).unwrap().table();
    let mut ruleset = Kernel::open().unwrap().dump(&table).unwrap()?;
    for filled in &mut ruleset.sets {
        if filled.set.dynamic {
            filled.elements.clear();
        }
        for element in &mut filled.elements {
            (element.counter, element.expires) = (None, None);
        }
    }
    for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        (rule.handle, rule.position) = (None, None);
    }
    ruleset.sort();
    Some(ruleset)
}

/// What these objects ask for.
fn planned(config: &ServicesConfig, services: &[Service], slices: &[EndpointSlice]) -> Ruleset {
    let services = Services::load(config.clone(), services.to_vec(), slices.to_vec()).unwrap();
    let mut ruleset = services.ruleset();
    ruleset.sort();
    ruleset
}

/// The table in the kernel is what these objects ask for.
#[track_caller]
fn assert_planned(services: &[Service], slices: &[EndpointSlice]) {
    assert_same(&in_kernel().expect("the table is there"), &planned(&objects::config(), services, slices));
}

#[track_caller]
fn assert_same(have: &Ruleset, want: &Ruleset) {
    // As text first: it can be read.
    for (have, want) in have.to_string().lines().zip(want.to_string().lines()) {
        assert_eq!(have, want);
    }
    assert_eq!(have, want);
}

fn generation() -> u32 {
    Kernel::open().unwrap().generation().unwrap()
}

fn start(services: &[Service], slices: &[EndpointSlice]) -> ServicePlane {
    ServicePlane::start(objects::config(), services.to_vec(), slices.to_vec()).unwrap()
}
