use proptest::prelude::*;

use super::*;

#[test]
fn one_field_keeps_its_length_and_several_are_padded_to_words() {
    assert_eq!(Data::new().port(80).as_bytes(), [0, 80]);
    assert_eq!(Data::new().protocol(6).port(80).as_bytes(), [6, 0, 0, 0, 0, 80, 0, 0]);
    assert_eq!(Data::new().ipv4([10, 0, 0, 1].into()).protocol(17).as_bytes(), [10, 0, 0, 1, 17, 0, 0, 0]);
}

#[test]
fn fields_are_taken_apart_as_they_were_put_together() {
    let data = Data::new().protocol(6).port(80).ipv4([10, 0, 0, 1].into());
    let fields: Vec<_> = data.split(&[1, 2, 4]).collect();
    assert_eq!(fields, [&[6_u8][..], &[0, 80], &[10, 0, 0, 1]]);
}

#[test]
fn a_long_interface_name_is_cut_before_its_zero_byte() {
    let data = Data::new().interface("a-name-longer-than-fifteen");
    assert_eq!(data.as_bytes(), b"a-name-longer-t\0");
}

#[test]
fn nothing_comes_after_the_greatest_nor_before_the_least() {
    assert_eq!(Data::new().port(65_535).successor(), None);
    assert_eq!(Data::new().port(0).predecessor(), None);
}

proptest! {
    #[test]
    fn successor_and_predecessor_count_as_numbers_do(port in 0..u16::MAX) {
        let (one, two) = (Data::new().port(port), Data::new().port(port + 1));
        prop_assert_eq!(one.successor(), Some(two.clone()));
        prop_assert_eq!(two.predecessor(), Some(one.clone()));
        prop_assert!(one < two);
    }
}
