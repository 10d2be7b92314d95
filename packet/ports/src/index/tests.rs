//! What is found by a search is what a walk through everything finds.

use super::*;

const SLOT: Slot = Slot { instance: 0, container: 0, place: Place { offset: 0, length: 0 }, held: true };

fn mapping_of(number: u16) -> Mapping {
    let host = match number % 5 {
        0 => PortRange::block(10_000 + 40 * number, 40).unwrap(),
        _ => PortRange::single(10_000 + 40 * number + number % 3).unwrap(),
    };
    Mapping {
        protocol: Protocol::ALL[usize::from(number % 3)],
        address: number.is_multiple_of(11).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host,
        container: host.first(),
        // Several lead to the same instance, and some have one version of IP only.
        v4: (!number.is_multiple_of(7)).then(|| Ipv4Addr::new(10, 0, (number % 50) as u8, 1)),
        v6: number.is_multiple_of(2).then(|| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number % 90)),
    }
}

fn index_of(folder: &Path) -> (Vec<Mapping>, Index) {
    let all: Vec<Mapping> = (0..1_300).map(mapping_of).collect();
    let mut writer = Writer::default();
    Protocol::ALL.iter().for_each(|_| writer.taken(&Bitmap::new()));
    for (number, mapping) in all.iter().enumerate() {
        // Two leases of each container, and some of none.
        let container = if number % 10 == 0 { 0 } else { hash(&[&format!("container-{}", number / 2)]) };
        let lease = writer.lease(Slot { instance: hash(&[&number.to_string()]), container, ..SLOT });
        writer.mapping(lease, mapping.clone());
    }
    let path = folder.join("index");
    writer.write(&path, 7, 100).unwrap();
    (all, Index::open(&path, 7, 100).unwrap().unwrap())
}

#[test]
fn a_search_finds_all_that_is_concerned_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (all, index) = index_of(folder.path());
    let sorted = |mut mappings: Vec<Mapping>| {
        mappings.sort_by_key(Mapping::key);
        mappings
    };
    for number in (0..1_350).step_by(13) {
        let own = mapping_of(number);
        let ports = [
            (own.protocol, own.host),
            (Protocol::Tcp, PortRange::new(9_000 + number, 9_700 + number).unwrap()),
        ];
        let (v4, v6): (Vec<_>, Vec<_>) = (own.v4.into_iter().collect(), own.v6.into_iter().collect());
        let found = index.concerned(&v4, &v6, &ports).map(|(_, mapping)| mapping).collect();
        let concerned = |one: &&Mapping| {
            one.v4.is_some() && one.v4 == own.v4
                || one.v6.is_some() && one.v6 == own.v6
                || ports.iter().any(|(protocol, range)| one.protocol == *protocol && range.overlaps(one.host))
        };
        assert_eq!(sorted(found), sorted(all.iter().filter(concerned).cloned().collect()), "{number}");
    }
    assert!(!index.is_damaged());
    assert!(index.tables[MAPPINGS].get().is_none(), "and no table is read for it");
}

#[test]
fn leases_are_found_by_container() {
    let folder = tempfile::tempdir().unwrap();
    let (_, index) = index_of(folder.path());
    assert_eq!(index.of_container("container-3").count(), 2);
    assert_eq!(index.of_container("container-5").count(), 1, "the other lease has no container");
    assert_eq!(index.of_container("container-5000").count(), 0);
    assert!(index.tables[SLOTS].get().is_none(), "and no table is read for it");
}
