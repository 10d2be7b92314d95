use portolan_netlink::{
    attribute::attributes,
    message::{ACK, messages},
};

use super::encode;
use crate::{
    Data, DataType, Element, Family, Set, Table, Transaction,
    wire::{self, Kind, attribute as a},
};

fn count() -> impl FnMut() -> u32 {
    let mut last = 0;
    move || {
        last += 1;
        last
    }
}

fn port(number: u16) -> Element {
    Element::new(Data::new().port(number)).comment("a comment of some length, to make the element larger")
}

fn transaction(set: &Set, elements: Vec<Element>) -> Transaction {
    let mut all = Transaction::new(Table::new(Family::Inet, "portolan"));
    all.add_table().add(set.clone()).add_elements(set, elements);
    all
}

#[test]
fn many_elements_are_cut_into_messages_that_the_kernel_can_read() {
    let set = Set::new("ports", [DataType::InetService]);
    let batch = encode(&transaction(&set, (0..=u16::MAX).map(port).collect()), count()).unwrap();
    let mut seen = Vec::new();
    for message in messages(batch.as_bytes()).filter(|message| message.kind == Kind::NewElement.message()) {
        let list = message.attributes(wire::FIXED).find(a::list::ELEMENTS).unwrap();
        assert!(list.payload.len() < usize::from(u16::MAX));
        for element in list.nested() {
            let key = element.nested().find(a::elem::KEY).unwrap().nested().find(a::data::VALUE).unwrap();
            seen.push(key.be16().unwrap());
        }
    }
    assert_eq!(seen, (0..=u16::MAX).collect::<Vec<_>>());
}

#[test]
fn only_the_last_message_before_the_end_is_acknowledged() {
    let set = Set::new("ports", [DataType::InetService]);
    let batch = encode(&transaction(&set, (0..5_000).map(port).collect()), count()).unwrap();
    let all: Vec<_> = messages(batch.as_bytes()).collect();
    let asking: Vec<_> = all.iter().filter(|message| message.flags & ACK != 0).map(|m| m.sequence).collect();
    assert_eq!(asking, [all[all.len() - 2].sequence]);
    assert_eq!(batch.last(), Some(asking[0]));
    assert_eq!((all[0].kind, all[all.len() - 1].kind), (wire::BATCH_BEGIN, wire::BATCH_END));
}

#[test]
fn an_offset_in_a_message_names_the_element() {
    let set = Set::new("blocks", [DataType::InetService]).interval();
    let blocks =
        (0..2_500_u16).map(|at| Element::interval(Data::new().port(at * 10), Data::new().port(at * 10 + 5)));
    let batch = encode(&transaction(&set, blocks.collect()), count()).unwrap();
    let mut next = 0;
    for message in messages(batch.as_bytes()).filter(|message| message.kind == Kind::NewElement.message()) {
        let start = message.payload.as_ptr() as usize - portolan_netlink::message::HEADER;
        let list = attributes(&message.payload[wire::FIXED..]).find(a::list::ELEMENTS).unwrap();
        // Each interval is two elements of the kernel, and an error in either is one of the interval.
        for half in list.nested() {
            let offset = half.payload.as_ptr() as usize - start - 4;
            let found = batch.locate(message.sequence, Some(offset as u32));
            assert_eq!(found, Some((2, Some(next / 2))));
            next += 1;
        }
    }
    assert_eq!(next, 5_000);
}

#[test]
fn an_empty_transaction_asks_for_nothing() {
    let batch = encode(&Transaction::new(Table::new(Family::Inet, "portolan")), count()).unwrap();
    assert_eq!(batch.last(), None);
}
