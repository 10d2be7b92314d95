//! The setting in network namespaces of the tests' own, and in plain files for what the kernel would not do.

use std::net::UdpSocket;

use portolan_testkit::{need_root, net::private_namespace};
use tempfile::TempDir;

use super::*;

fn ranges(text: &str) -> Vec<PortRange> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
}

struct Setting(TempDir, PathBuf);

impl Setting {
    fn real(value: &str) -> Self {
        fs::write(PATH, format!("{value}\n")).unwrap();
        Self(tempfile::tempdir().unwrap(), PATH.into())
    }

    fn make(&self, wanted: &str) -> (Vec<PortRange>, Result<Reservation, ReserveError>) {
        Reservation::make(&self.1, &self.0.path().join("reserved.json"), &Boot::current(), &ranges(wanted))
    }

    fn value(&self) -> String {
        read_at_once(&self.1).unwrap().trim().to_owned()
    }
}

#[test]
fn our_ranges_are_merged_and_taken_out_again() {
    need_root!();
    private_namespace(|| {
        let setting = Setting::real("8080,20010-20019");
        let (others, reservation) = setting.make("20000-29999");
        assert_eq!(others, ranges("8080,20010-20019"));
        assert_eq!(setting.value(), "8080,20000-29999");
        reservation.unwrap().restore().unwrap();
        assert_eq!(setting.value(), "8080,20010-20019");
        assert_eq!(fs::read_dir(setting.0.path()).unwrap().count(), 0);
    });
}

#[test]
fn the_kernel_chooses_none_of_them() {
    need_root!();
    private_namespace(|| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40009").unwrap();
        let setting = Setting::real("");
        let reservation = setting.make("40000-40004,40006-40009").1.unwrap();
        for _ in 0..20 {
            assert_eq!(UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port(), 40_005);
        }
        UdpSocket::bind("[::]:40004").unwrap();
        reservation.restore().unwrap();
        assert_eq!(setting.value(), "");
    });
}

#[test]
fn what_a_crash_left_is_taken_over_by_the_next_start() {
    need_root!();
    private_namespace(|| {
        let setting = Setting::real("8080");
        drop(setting.make("20000-29999").1.unwrap());
        let (others, again) = setting.make("25000-30999");
        assert_eq!(others, ranges("8080"), "ours are not taken for somebody else's");
        assert_eq!(setting.value(), "8080,25000-30999");
        again.unwrap().restore().unwrap();
        assert_eq!(setting.value(), "8080");
    });
}

#[test]
fn what_others_change_in_between_stays_changed() {
    need_root!();
    private_namespace(|| {
        let setting = Setting::real("8080");
        let mut reservation = setting.make("20000-20009").1.unwrap();
        assert!(!reservation.check().unwrap());
        fs::write(PATH, "9090\n").unwrap();
        assert!(reservation.check().unwrap(), "somebody has overwritten ours");
        assert_eq!(setting.value(), "9090,20000-20009");
        fs::write(PATH, "9090-9099,20000-20009\n").unwrap();
        reservation.restore().unwrap();
        assert_eq!(setting.value(), "9090-9099");
    });
}

#[test]
fn a_long_list_is_written_whole() {
    need_root!();
    private_namespace(|| {
        // Every second port: 12,000 bytes, three times what the kernel takes at once.
        let list: Vec<_> = (0..2000).map(|n| (10_001 + 2 * n).to_string()).collect();
        let setting = Setting::real("");
        let reservation = setting.make(&list.join(",")).1.unwrap();
        assert_eq!(setting.value(), list.join(","));
        reservation.restore().unwrap();
        assert_eq!(setting.value(), "");
    });
}

#[test]
fn a_setting_that_cannot_be_written_is_told_with_the_command_that_would_do_it() {
    let folder = tempfile::tempdir().unwrap();
    // A folder instead of a file fails for root too.
    let (others, error) = Reservation::make(
        folder.path(),
        &folder.path().join("reserved.json"),
        &Boot::current(),
        &ranges("20000-29999"),
    );
    assert_eq!((others, error.is_err()), (vec![], true));
    let unwritable = Setting(folder, "/proc/self/comm".into());
    let reservation = Reservation {
        setting: "/proc/version".into(),
        record: unwritable.0.path().join("reserved.json"),
        boot: Boot::current(),
        wanted: vec![],
        added: vec![],
    };
    let error = reservation.write(&ranges("8080,20000-29999")).unwrap_err().to_string();
    assert!(error.contains("cannot write /proc/version: "), "{error}");
    assert!(
        error.ends_with("As root: sysctl -w net.ipv4.ip_local_reserved_ports=8080,20000-29999"),
        "{error}"
    );
}

#[test]
fn a_record_of_another_boot_or_namespace_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting(folder, PathBuf::new());
    let file = setting.0.path().join("setting");
    fs::write(&file, "20000-29999\n").unwrap();
    let record = setting.0.path().join("reserved.json");
    let old = Record { boot: Boot::current(), namespace: 1, added: ranges("20000-29999") };
    fs::write(&record, serde_json::to_vec(&old).unwrap()).unwrap();
    let (others, reservation) = Reservation::make(&file, &record, &Boot::current(), &ranges("20000-29999"));
    assert_eq!(others, ranges("20000-29999"));
    reservation.unwrap().restore().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "20000-29999");
}
