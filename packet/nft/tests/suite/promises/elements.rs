//! Elements: values, lengths, intervals, timeouts, and very many of them.

use std::time::Duration;

use portolan_nft::{Chain, Data, DataType, Element, Elements, Error, Nft, Set, Verdict};

use crate::objects::*;

pub(crate) fn an_element_with_another_value_is_refused(nft: &mut dyn Nft) {
    nft.run(&everything().creation()).unwrap();
    let other = Data::new().ipv4([10, 9, 9, 9].into()).port(1);
    let error = run(nft, |all| {
        all.add_elements(&ports(), [port(20_000).value(other.clone())]);
    })
    .unwrap_err();
    // Which of the two depends on the kernel's version.
    assert!(error.is_already_exists() || error.is_busy(), "{error}");
    // Replacing it is deleting and adding, at once.
    run(nft, |all| {
        all.delete_elements(&ports(), [port(20_000)])
            .add_elements(&ports(), [port(20_000).value(other.clone())]);
    })
    .unwrap();
    let now = dump(nft);
    assert_eq!(now.find_set("ports").unwrap().elements[0], port(20_000).value(other));
}

pub(crate) fn a_full_set_takes_no_more(nft: &mut dyn Nft) {
    let set = Set::new("small", [DataType::InetService]).size(2);
    let element = |port: u16| Element::new(Data::new().port(port));
    run(nft, |all| {
        all.add_table().add(set.clone()).add_elements(&set, [element(1), element(2)]);
    })
    .unwrap();
    let error = run(nft, |all| {
        all.add_elements(&set, [element(3)]);
    })
    .unwrap_err();
    assert_eq!(error.errno(), Some(23), "{error}");
}

pub(crate) fn overlapping_intervals_are_refused(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), [block(100, 200)]);
    })
    .unwrap();
    for (first, last) in [(150, 250), (50, 100), (120, 130), (50, 250), (200, 200), (100, 150), (150, 200)] {
        let error = run(nft, |all| {
            all.add_elements(&blocks(), [block(first, last)]);
        })
        .unwrap_err();
        assert!(error.is_already_exists(), "{first}-{last}: {error}");
        assert_eq!(error.index(), Some(0));
    }
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, [block(100, 200)]);
}

pub(crate) fn overlapping_concatenated_intervals_are_refused(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ranges()).add_elements(&ranges(), [range(6, 100, 200), range(17, 100, 200)]);
    })
    .unwrap();
    // Not 50-250: kernels up to 6.18 take an interval that goes around one that is there (the fake does not).
    for (first, last) in [(150, 250), (50, 100), (120, 130)] {
        let error = run(nft, |all| {
            all.add_elements(&ranges(), [range(6, first, last)]);
        })
        .expect_err(&format!("{first}-{last}"));
        assert!(error.is_already_exists(), "{first}-{last}: {error}");
    }
    run(nft, |all| {
        all.add_elements(&ranges(), [range(132, 150, 250), range(6, 201, 201)]);
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("ranges").unwrap().elements.len(), 4);
}

pub(crate) fn neighbouring_intervals_are_kept_apart(nft: &mut dyn Nft) {
    let all_of_them = [block(10, 19), block(20, 29), block(30, 30), block(31, 31), block(40, 49)];
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), all_of_them.clone());
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, all_of_them);
    run(nft, |all| {
        all.delete_elements(&blocks(), [block(20, 29), block(31, 31)]);
    })
    .unwrap();
    let left = [block(10, 19), block(30, 30), block(40, 49)];
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, left);
}

pub(crate) fn intervals_reach_to_both_ends(nft: &mut dyn Nft) {
    let both = [block(0, 9), block(65_000, 65_535)];
    run(nft, |all| {
        all.add_table().add(blocks()).add_elements(&blocks(), both.clone());
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, both);
    run(nft, |all| {
        all.delete_elements(&blocks(), both).add_elements(&blocks(), [block(0, 65_535)]);
    })
    .unwrap();
    assert_eq!(dump(nft).find_set("blocks").unwrap().elements, [block(0, 65_535)]);
}

pub(crate) fn elements_of_the_wrong_length_are_not_sent(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ports()).add(verdicts());
    })
    .unwrap();
    let key = Data::new().protocol(6).port(1);
    for wrong in [
        Element::new(Data::new().port(1)),
        Element::new(key.clone()),
        Element::new(key.clone()).verdict(Verdict::Accept),
        Element::new(key.clone()).value(Data::new().port(1)),
        Element::interval(key.clone(), Data::new().protocol(6).port(2)),
    ] {
        let error = run(nft, |all| {
            all.add_elements(&ports(), [port(1), wrong]);
        })
        .unwrap_err();
        let Error::Invalid { index: 0, why, .. } = &error else { panic!("{error}") };
        assert!(why.starts_with("element 1: "), "{why}");
    }
}

pub(crate) fn timeouts_need_a_set_that_has_them(nft: &mut dyn Nft) {
    let hour = Duration::from_secs(3600);
    let lasting = Set::new("lasting", [DataType::InetService]);
    let fading = Set::new("fading", [DataType::InetService]).timeouts();
    let by_default = Set::new("by_default", [DataType::InetService]).timeout(hour);
    let element = || Element::new(Data::new().port(1));
    run(nft, |all| {
        all.add_table().add(lasting.clone()).add(fading.clone()).add(by_default.clone());
        all.add_elements(&fading, [element().timeout(hour), Element::new(Data::new().port(2))]);
        all.add_elements(&by_default, [element(), Element::new(Data::new().port(2)).timeout(hour * 2)]);
    })
    .unwrap();
    let now = bare(dump(nft));
    let of = |name| now.find_set(name).unwrap().elements.iter().map(|one| one.timeout).collect::<Vec<_>>();
    assert_eq!(of("fading"), [Some(hour), None]);
    assert_eq!(of("by_default"), [None, Some(hour * 2)]);
    let error = run(nft, |all| {
        all.add_elements(&lasting, [element().timeout(hour)]);
    })
    .unwrap_err();
    assert_eq!(error.errno(), Some(22), "{error}");
}

pub(crate) fn twenty_thousand_elements_are_one_transaction(nft: &mut dyn Nft) {
    let elements: Vec<_> = (20_000..40_000).map(port).collect();
    run(nft, |all| {
        all.add_table().add(ports()).add_elements(&ports(), elements.clone());
    })
    .unwrap();
    let before = nft.generation().unwrap();
    assert_eq!(dump(nft).find_set("ports").unwrap().elements, elements);
    run(nft, |all| {
        all.delete_elements(&ports(), elements);
    })
    .unwrap();
    assert_eq!(nft.generation().unwrap(), before.wrapping_add(1));
    assert_eq!(dump(nft).find_set("ports").unwrap().elements, []);
}

pub(crate) fn the_refused_element_of_many_is_named(nft: &mut dyn Nft) {
    run(nft, |all| {
        all.add_table().add(ports()).add(blocks());
        all.add_elements(&ports(), [port(20_417)]).add_elements(&blocks(), [block(5_000, 5_009)]);
    })
    .unwrap();
    let error = run(nft, |all| {
        all.add(Chain::regular("c"));
        all.create_elements(&ports(), (10_000..30_000).map(port).collect::<Vec<_>>());
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("create element tcp . 20417 to map inet portolan ports: File exists"), "{text}");
    assert_eq!(error.index(), Some(1));
    let tens = (0..2_000).map(|at| block(at * 10 + 5, at * 10 + 9));
    let error = run(nft, |all| {
        all.add_elements(&blocks(), tens.collect::<Vec<_>>());
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("add element 5005-5009 to map inet portolan blocks: File exists"), "{text}");
    let wanted = Elements { set: ports(), elements: vec![port(1), port(20_417), port(2)] };
    let error = run(nft, |all| {
        all.delete(wanted);
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("delete element tcp . 1 from map inet portolan ports: No such file"), "{text}");
}
