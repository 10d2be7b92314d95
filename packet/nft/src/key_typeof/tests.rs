use super::*;

#[test]
fn what_is_written_is_read_again() {
    let parametric = [
        Selector::NumgenRandom(3),
        Selector::NumgenIncremental(7),
        Selector::SymmetricHash(251),
        Selector::CtTuple(CtKey::DestinationPort, CtDirection::Original),
        Selector::CtTuple(CtKey::SourceIpv6, CtDirection::Reply),
    ];
    for selector in Selector::PLAIN.into_iter().chain(parametric) {
        for key in [vec![selector], vec![Selector::DestinationPort, selector]] {
            assert_eq!(read(&write(&key).unwrap()), key, "{selector}");
        }
    }
}

#[test]
fn what_has_no_selector_is_not_read_as_another() {
    // numgen with an offset, and a meta key of no selector.
    let mut offset = Vec::new();
    for (at, number) in [1, 3, 9].into_iter().enumerate() {
        put_number(&mut offset, at as u8, number);
    }
    assert_eq!(read(&expression(NUMGEN, &offset)), []);
    let mut key = Vec::new();
    put_number(&mut key, 0, MetaKey::Cpu as u32);
    assert_eq!(read(&expression(META, &key)), []);
    assert_eq!(read(&[1, 200, 3]), []);
}

#[test]
fn a_key_that_is_too_long_to_say_is_left_out() {
    let random = Selector::NumgenRandom(3);
    assert!(write(&[random; 5]).is_some());
    assert!(write(&[random; 9]).is_none());
}
