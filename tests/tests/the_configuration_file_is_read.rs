//! `portolan up --config`: each flag is a key; flags and environment win; what is wrong is named with its line.

use portolan_testkit::{Portolan, need_root};

/// Writes the file and gives the flag that names it.
#[track_caller]
fn config(machine: &Portolan, text: &str) -> String {
    let path = machine.folder().join("portolan.toml");
    std::fs::write(&path, text).expect("a file");
    format!("--config={}", path.display())
}

#[test]
fn an_unknown_key_is_wrong_usage() {
    need_root!();
    let machine = Portolan::new();
    let flag = config(&machine, "# mine\nlisten = \"127.0.0.1:10080\"\npools = \"1-2\"\n");
    let said = machine.portolan(&["up", &flag]).failure(2);
    assert!(said.contains("portolan.toml:3: there is no key \"pools\": did you mean \"pool\"?"), "{said}");
    assert!(said.contains("hint: the keys are listen, "), "{said}");
}

#[test]
fn a_wrong_value_is_wrong_usage() {
    need_root!();
    let machine = Portolan::new();
    let flag = config(&machine, "ttl = \"soon\"\n");
    let said = machine.portolan(&["up", &flag]).failure(2);
    assert!(said.contains("portolan.toml:1: ttl: ") && said.contains("10s"), "{said}");
}

#[test]
fn a_pool_of_the_file_is_the_pool_unless_the_environment_or_a_flag_says_another() {
    need_root!();
    let machine = Portolan::new();
    let flag = config(&machine, "pool = \"21000-21009\"\nno-dataplane = true\n");
    let pools = |arguments: &[&str], variable: Option<&str>| {
        let mut command = machine.command(&[&["up", &flag], arguments].concat());
        command.envs(variable.map(|value| ("PORTOLAN_POOL", value)));
        let mut up = portolan_testkit::Background::start(&mut command);
        machine.wait_ready(&mut up);
        let table = machine.portolan(&["ports"]).success();
        machine.interrupt(&mut up);
        table
    };
    assert!(pools(&[], None).contains("21000-21009"));
    assert!(pools(&[], Some("22000-22009")).contains("22000-22009"));
    assert!(pools(&["--pool", "23000-23009"], Some("22000-22009")).contains("23000-23009"));
}
