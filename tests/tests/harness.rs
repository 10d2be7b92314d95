//! The harness that the other files stand on: machines are apart from each other and go away.

use std::time::Duration;

use portolan_testkit::{Background, Portolan, eventually, need_root, programs};
use portolan_tests::machine::Picture;

#[test]
fn a_machine_has_named_namespaces_of_its_own() {
    need_root!();
    let (one, other) = (Portolan::new(), Portolan::new());
    let before = Picture::of(&one);
    programs::run(one.program("ip").args(["netns", "add", "portolan-web-0"]));
    assert_eq!(Picture::of(&one).differences(&before).len(), 1);
    assert_eq!(programs::run(other.program("ip").args(["netns", "list"])), "");
    programs::run(one.program("ip").args(["netns", "del", "portolan-web-0"]));
    Picture::of(&one).assert_same(&before);
}

#[test]
fn commands_run_in_the_folder_of_the_machine_as_its_user() {
    need_root!();
    let machine = Portolan::new();
    assert_eq!(
        programs::run(machine.program("pwd").arg("-P")).trim(),
        machine.folder().display().to_string()
    );
    assert_eq!(programs::run(machine.program("id").arg("-u")).trim(), "0");
    let machine = Portolan::unprivileged();
    assert_eq!(
        programs::run(machine.program("pwd").arg("-P")).trim(),
        machine.folder().display().to_string()
    );
    assert_eq!(programs::run(machine.program("id").arg("-u")).trim(), "65534");
}

#[test]
fn nothing_that_a_machine_started_outlives_it() {
    need_root!();
    let machine = Portolan::new();
    // A grandchild in a session of its own, as a daemon would be.
    let mut shell = Background::start(machine.program("sh").args(["-c", "setsid sleep 1000 & exit 0"]));
    shell.wait(Duration::from_secs(10));
    eventually(Duration::from_secs(10), || {
        machine.processes().iter().any(|(_, command)| command.contains("1000"))
    });
    let (pid, _) = machine.processes().remove(0);
    drop(machine);
    let gone = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|bytes| bytes.is_empty());
    eventually(Duration::from_secs(10), || gone() || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}
