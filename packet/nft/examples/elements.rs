//! How long elements take: many in one transaction, one among many, and the dump of all. As root:
//! `unshare -n cargo run --release -p portolan-nft --example elements`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use portolan_nft::{Data, DataType, Element, Family, Kernel, Nft, Set, Table, Transaction};

fn port(number: u16) -> Element {
    let key = Data::new().protocol(6).port(number);
    Element::new(key).value(Data::new().ipv4([10, 213, 0, 2].into()).port(number))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

fn main() {
    let table = Table::new(Family::Inet, "measured");
    let key = [DataType::InetProto, DataType::InetService];
    let set = Set::map("ports", key, [DataType::Ipv4Addr, DataType::InetService]);
    let mut kernel = Kernel::open().unwrap();
    println!(
        "{:>9} {:>12} {:>10} {:>14} {:>14} {:>10}",
        "elements", "load", "dump", "add one p50", "add one p99", "delete all"
    );
    for count in [0_u16, 1_000, 10_000, 20_000, 60_000] {
        let elements: Vec<_> = (1..=count).map(port).collect();
        let mut transaction = Transaction::new(table.clone());
        transaction.destroy_table().add_table().add(set.clone());
        kernel.run(&transaction).unwrap();
        let mut load = Transaction::new(table.clone());
        load.add_elements(&set, elements.clone());
        let ((), loading) = timed(|| kernel.run(&load).unwrap());
        let mut one = Vec::new();
        for number in 0..1_000 {
            let mut add = Transaction::new(table.clone());
            add.create_elements(&set, [port(60_001 + number % 5_000)]);
            one.push(timed(|| kernel.run(&add).unwrap()).1);
        }
        one.sort();
        let (ruleset, dumping) = timed(|| kernel.dump(&table).unwrap().unwrap());
        assert_eq!(ruleset.sets[0].elements.len(), usize::from(count) + 1_000);
        let mut delete = Transaction::new(table.clone());
        delete.delete_elements(&set, elements);
        let ((), deleting) = timed(|| kernel.run(&delete).unwrap());
        let (p50, p99) = (one[500], one[990]);
        println!("{count:>9} {loading:>12.2?} {dumping:>10.2?} {p50:>14.2?} {p99:>14.2?} {deleting:>10.2?}");
    }
    let mut gone = Transaction::new(table);
    gone.delete_table();
    kernel.run(&gone).unwrap();
}
