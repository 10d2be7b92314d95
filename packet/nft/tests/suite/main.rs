//! The same promises for the kernel and for the fake: so the fake cannot drift from what it stands for.
//!
//! [`promises`] are plain functions over `dyn Nft`; [`history`] runs random transactions on both and compares.
#![allow(clippy::unwrap_used)]

mod history;
mod objects;
mod promises;

use portolan_nft::{Fake, Kernel};
use portolan_testkit::{need_root, net::private_namespace};

macro_rules! suite {
    ($($promise:ident,)*) => {
        mod fake {
            use super::*;
            $(#[test] fn $promise() { promises::$promise(&mut Fake::new()); })*
        }
        mod kernel {
            use super::*;
            $(#[test] fn $promise() {
                need_root!();
                private_namespace(|| promises::$promise(&mut Kernel::open().unwrap()));
            })*
        }
        /// As a kernel before 6.3, where `destroy` is made of a look and a delete.
        mod kernel_without_destroy {
            use super::*;
            $(#[test] fn $promise() {
                need_root!();
                private_namespace(|| promises::$promise(&mut Kernel::open().unwrap().without_destroy()));
            })*
        }
    };
}

suite! {
    a_table_that_is_not_there_dumps_as_none,
    what_was_created_is_dumped_the_same,
    an_empty_transaction_changes_nothing,
    a_refused_step_is_named_and_nothing_is_done,
    creating_what_is_there_is_refused,
    adding_what_is_there_is_fine,
    deleting_what_is_not_there_is_refused,
    destroying_what_is_not_there_is_fine,
    destroying_removes_what_is_there,
    a_missing_table_chain_or_set_is_not_found,
    a_chain_that_is_jumped_to_is_busy,
    a_chain_that_a_verdict_map_leads_to_is_busy,
    a_set_that_a_rule_looks_into_is_busy,
    a_chain_goes_with_its_own_rules,
    nobody_may_jump_to_a_chain_of_the_kernel,
    jumps_in_a_circle_are_refused,
    a_lookup_must_fit_its_set,
    nat_belongs_into_nat_chains,
    rules_keep_the_order_they_were_given,
    a_rule_is_replaced_in_its_place,
    a_rule_without_a_handle_is_not_deleted,
    flushing_empties_chains_sets_and_tables,
    an_element_with_another_value_is_refused,
    a_full_set_takes_no_more,
    overlapping_intervals_are_refused,
    overlapping_concatenated_intervals_are_refused,
    neighbouring_intervals_are_kept_apart,
    intervals_reach_to_both_ends,
    elements_of_the_wrong_length_are_not_sent,
    a_policy_can_change_but_a_hook_cannot,
    timeouts_need_a_set_that_has_them,
    comments_come_back,
    the_generation_tells_of_changes,
    tables_of_others_are_listed_and_left_alone,
    twenty_thousand_elements_are_one_transaction,
    the_refused_element_of_many_is_named,
}
