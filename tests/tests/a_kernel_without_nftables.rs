//! A kernel that lacks what the data plane needs.

use portolan_testkit::{Portolan, binary, need_root, programs};
use portolan_tests::machine::Picture;

#[test]
fn up_says_what_is_missing_and_changes_nothing() {
    need_root!();
    let machine = Portolan::new();
    let before = Picture::of(&machine);
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/without_nftables.py");
    let mut command = machine.program("python3");
    let output = programs::output(command.arg(wrapper).arg(binary()).arg("up"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["this kernel has no nftables", "modprobe nf_tables", "--no-dataplane"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    Picture::of(&machine).assert_same(&before);
}
