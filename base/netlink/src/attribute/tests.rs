//! What the codec promises, for every input.

use proptest::prelude::*;

use super::*;

#[test]
fn a_nest_says_its_length_and_its_type_without_flags() {
    let mut writer = Writer::new();
    writer.nest(4, |w| {
        w.be16(1, 0x1234);
        w.nest(2, |w| w.str0(3, "abc"));
    });
    writer.flag(9);
    assert_eq!(writer.check(), Ok(()));
    let bytes = writer.into_bytes();
    let all: Vec<_> = attributes(&bytes).collect();
    assert_eq!(all.iter().map(|a| a.kind).collect::<Vec<_>>(), [4, 9]);
    assert_eq!(all[0].nested().find(1).and_then(|a| a.be16()), Some(0x1234));
    let inner = all[0].nested().find(2).unwrap();
    assert_eq!(inner.nested().find(3).and_then(|a| a.str()), Some("abc"));
    // The bytes that `struct nlattr` asks for: length 24, type 4 with NLA_F_NESTED.
    assert_eq!(bytes[..4], [24u16.to_ne_bytes(), 0x8004u16.to_ne_bytes()].concat());
}

#[test]
fn an_attribute_that_cannot_say_its_length_is_reported_with_its_type() {
    let mut writer = Writer::new();
    writer.bytes(1, &vec![0; LONGEST]);
    assert_eq!(writer.check(), Ok(()));
    writer.clear();
    writer.nest(7, |w| (0..5000).for_each(|n| w.be64(1, n)));
    assert_eq!(writer.check(), Ok(()));
    writer.clear();
    writer.nest(7, |w| (0..6000).for_each(|n| w.be64(1, n)));
    assert_eq!(writer.check(), Err(Oversize { kind: 7, bytes: 72_000 }));
    assert_eq!(writer.check(), Ok(()), "an error is reported once");
}

proptest! {
    #[test]
    fn what_is_written_is_read(list in prop::collection::vec((0u16..0x3fff, prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
        let mut writer = Writer::new();
        for (kind, payload) in &list {
            writer.bytes(*kind, payload);
        }
        let bytes = writer.into_bytes();
        let read: Vec<_> = attributes(&bytes).map(|a| (a.kind, a.payload.to_vec())).collect();
        prop_assert_eq!(read, list);
    }

    #[test]
    fn any_bytes_are_read_without_panic_and_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for attribute in attributes(&bytes) {
            prop_assert!(attribute.nested().count() <= bytes.len());
            let _ = (attribute.u8(), attribute.be16(), attribute.u32(), attribute.be64(), attribute.str());
        }
    }
}
