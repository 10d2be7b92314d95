//! On the real kernel, in namespaces of their own.

use portolan_nft::{Chain, ChainKind, Data, DataType, Family, Hook, Kernel, Table, priority};
use portolan_testkit::{need_root, net::private_namespace, nft};

use super::*;

/// A small copy of what Services need: a map with backends, and one that leads there.
fn table(services: u32) -> Ruleset {
    let address = |number: u32| Data::new().ipv4(std::net::Ipv4Addr::from(0x0a60_0000 + number));
    let backends = Set::map("backends", [DataType::Ipv4Addr, DataType::Integer], [DataType::Ipv4Addr]);
    let entrances = Set::map("entrances", [DataType::Ipv4Addr], [DataType::InterfaceName]);
    let elements: Vec<_> = (0..services)
        .flat_map(|n| {
            [0, 1].map(|index| Element::new(address(n).number(index)).value(address(2 * n + index)))
        })
        .collect();
    let ways: Vec<_> =
        (0..services).map(|n| Element::new(address(n)).value(Data::new().interface("all-2"))).collect();
    Ruleset::new(Table::new(Family::Inet, "level"))
        .chain(Chain::base("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT), [])
        .set(backends, elements)
        .set(entrances, ways)
}

fn go(nft: &mut Kernel, wanted: &Ruleset, each: &mut dyn FnMut(u64)) -> Levelled {
    level(nft, wanted, &mut Stride::default(), each).unwrap()
}

fn count(nft: &mut Kernel, table: &Table, set: &str) -> usize {
    let dump = nft.dump(table).unwrap().unwrap();
    dump.find_set(set).unwrap().elements.len()
}

#[test]
fn what_leads_in_is_written_last_and_removed_first() {
    need_root!();
    private_namespace(|| {
        let (mut nft, mut eye) = (Kernel::open().unwrap(), Kernel::open().unwrap());
        let (want, less) = (table(2_000), table(500));
        let mut seen = Vec::new();
        let mut look = |number| {
            if number > 0 {
                let counts = ["backends", "entrances"].map(|set| count(&mut eye, &want.table, set));
                seen.push(counts);
                // Whatever is led in finds all of its backends.
                assert!(counts[1] == 0 || counts[0] >= 2 * counts[1], "{counts:?}");
            }
        };
        go(&mut nft, &want, &mut look);
        go(&mut nft, &less, &mut look);
        go(&mut nft, &want, &mut look);
        // It is written in pieces, however quick the kernel is: somebody has looked in between.
        assert!(seen.iter().any(|&[backends, entrances]| backends > 0 && entrances == 0), "{seen:?}");
        assert!(seen.iter().any(|&[backends, entrances]| backends > 2 * entrances), "{seen:?}");
        assert!(go(&mut nft, &want, &mut |_| {}).found.is_empty());
    });
}

#[test]
fn an_element_that_the_kernel_refuses_keeps_out_no_other() {
    need_root!();
    private_namespace(|| {
        let mut nft = Kernel::open().unwrap();
        let mut want = table(1_500);
        // Room for all but a few.
        want.sets[1].set.size = Some(1_490);
        let done = go(&mut nft, &want, &mut |_| {});
        assert_eq!(count(&mut nft, &want.table, "backends"), 3_000);
        assert_eq!(count(&mut nft, &want.table, "entrances"), 1_490);
        assert_eq!(done.written.refusals, 10);
        assert!(done.written.refused[0].contains("entrances"), "{:?}", done.written.refused);
    });
}

#[test]
fn a_change_meanwhile_is_found_and_undone() {
    need_root!();
    private_namespace(|| {
        let mut nft = Kernel::open().unwrap();
        let want = table(3_000);
        let mut once = true;
        go(&mut nft, &want, &mut |number| {
            if number == 4 && std::mem::take(&mut once) {
                nft::nft("flush ruleset");
            }
        });
        assert!(go(&mut nft, &want, &mut |_| {}).found.is_empty());
    });
}
