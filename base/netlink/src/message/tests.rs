//! What the message layer promises.

use proptest::prelude::*;

use super::*;

fn datagram(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    writer.begin(kind, flags, 7);
    writer.raw(payload);
    writer.finish().unwrap();
    writer.into_bytes()
}

#[test]
fn messages_of_a_batch_are_read_back_in_order() {
    let mut writer = MessageWriter::new();
    for sequence in 1..=3 {
        writer.begin(100, 0, sequence);
        writer.raw(&[2, 0, 0, 0]);
        writer.str0(1, "ab");
        let range = writer.finish().unwrap();
        if sequence == 3 {
            writer.acknowledge(&range);
        }
    }
    let bytes = writer.into_bytes();
    let read: Vec<_> = messages(&bytes).collect();
    assert_eq!(read.iter().map(|m| m.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(read.iter().map(|m| m.flags).collect::<Vec<_>>(), [REQUEST, REQUEST, REQUEST | ACK]);
    assert!(read.iter().all(|m| m.attributes(4).find(1).and_then(|a| a.str()) == Some("ab")));
}

#[test]
fn a_message_with_an_oversize_attribute_leaves_the_batch_as_it_was() {
    let mut writer = MessageWriter::new();
    writer.begin(1, 0, 1);
    writer.finish().unwrap();
    let before = writer.as_bytes().to_vec();
    writer.begin(1, 0, 2);
    writer.bytes(3, &vec![0; 70_000]);
    assert_eq!(writer.finish(), Err(Oversize { kind: 3, bytes: 70_000 }));
    assert_eq!(writer.as_bytes(), before);
}

#[test]
fn a_refusal_carries_errno_text_and_offset() {
    let mut payload = (-2i32).to_ne_bytes().to_vec();
    payload.extend([0; HEADER]);
    let mut extended = Writer::new();
    extended.str0(1, "no such set");
    extended.u32(2, 56);
    payload.extend(extended.into_bytes());
    let bytes = datagram(ERROR, CAPPED | ACK_ATTRIBUTES, &payload);
    let refusal = messages(&bytes).next().and_then(|m| m.outcome()).unwrap().unwrap_err();
    assert_eq!((refusal.errno, refusal.offset, refusal.sequence), (2, Some(56), 7));
    assert_eq!(
        refusal.to_string(),
        "the kernel refused: No such file or directory (os error 2): no such set (at byte 56 of the message)"
    );
}

#[test]
fn an_acknowledgement_and_an_empty_end_of_dump_are_good_ends() {
    let acknowledgement = datagram(ERROR, CAPPED, &[0; 20]);
    let end = datagram(DONE, 0, &[]);
    for bytes in [acknowledgement, end] {
        assert_eq!(messages(&bytes).next().and_then(|m| m.outcome()), Some(Ok(())));
    }
    let other = datagram(16, 0, &[]);
    assert_eq!(messages(&other).next().and_then(|m| m.outcome()), None);
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_panic_and_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for message in messages(&bytes) {
            let _ = message.outcome();
            prop_assert!(message.attributes(4).count() <= bytes.len());
        }
    }
}
