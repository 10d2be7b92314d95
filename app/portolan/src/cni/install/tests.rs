use super::*;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use portolan_testkit::eventually;

const LIST: &str = "{\n  \"name\": \"n\",\n  \"plugins\": [\n    {\"type\": \"bridge\"},\n    {\"type\": \"portmap\"}\n  ]\n}\n";
const CONF: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"n\", \"type\": \"bridge\"}\n";

struct Machine {
    folder: tempfile::TempDir,
    config: InstallConfig,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = InstallConfig {
            bin_dir: Some(folder.path().join("bin")),
            conf_dir: folder.path().to_owned(),
            agent_socket: Some("/run/portolan/agent.sock".into()),
            keep_portmap: false,
        };
        Self { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Installs without the binary, which is 100 MiB in tests.
    fn chain(&self) -> bool {
        chain(&self.config).unwrap().1
    }
}

#[test]
fn the_first_list_is_chained_once_and_given_back_exactly() {
    let machine = Machine::new(&[("10-a.conflist", LIST), ("20-b.conf", CONF), ("readme.txt", "no")]);
    assert!(machine.chain() && !machine.chain());
    assert!(conflist::has_ours(&machine.text("10-a.conflist")));
    assert!(
        machine.text("10-a.conflist").contains("agentSocket")
            && !machine.text("10-a.conflist").contains("portmap\"")
    );
    assert_eq!(machine.text("20-b.conf"), CONF);
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("10-a.conflist"), LIST);
    assert_eq!(machine.names(), ["10-a.conflist", "20-b.conf", "readme.txt"]);
    assert_eq!(uninstall(&machine.config).unwrap(), [""; 0]);
}

#[test]
fn a_single_plugin_becomes_a_list_and_is_given_back_exactly() {
    let machine = Machine::new(&[("10-a.conf", CONF)]);
    assert!(machine.chain() && !machine.chain());
    assert_eq!(machine.names(), ["10-a.conflist", "portolan.installed"]);
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.names(), ["10-a.conf"]);
    assert_eq!(machine.text("10-a.conf"), CONF);
}

#[test]
fn the_permissions_of_the_file_are_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    fs::set_permissions(machine.path("10-a.conflist"), fs::Permissions::from_mode(0o600)).unwrap();
    machine.chain();
    assert_eq!(files::mode(&machine.path("10-a.conflist")), 0o600);
}

#[test]
fn a_file_that_was_written_again_is_chained_again_and_its_new_text_is_given_back() {
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    let newer = LIST.replace("bridge", "ptp");
    fs::write(machine.path("10-a.conflist"), &newer).unwrap();
    assert!(machine.chain());
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("10-a.conflist"), newer);

    let machine = Machine::new(&[("10-a.conf", CONF)]);
    machine.chain();
    let newer = CONF.replace("bridge", "ptp");
    fs::write(machine.path("10-a.conf"), &newer).unwrap();
    assert!(machine.chain());
    assert_eq!(machine.names(), ["10-a.conflist", "portolan.installed"]);
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.names(), ["10-a.conf"]);
    assert_eq!(machine.text("10-a.conf"), newer);
}

#[test]
fn a_file_that_was_edited_keeps_what_is_not_ours() {
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    let edited = machine.text("10-a.conflist").replace("bridge", "ptp");
    fs::write(machine.path("10-a.conflist"), edited).unwrap();
    assert!(!machine.chain());
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("10-a.conflist"), LIST.replace("bridge", "ptp"));
}

#[test]
fn another_first_file_takes_the_entry_over() {
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    fs::write(machine.path("05-b.conflist"), LIST).unwrap();
    assert!(machine.chain());
    assert_eq!(machine.text("10-a.conflist"), LIST);
    assert!(conflist::has_ours(&machine.text("05-b.conflist")));
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("05-b.conflist"), LIST);
}

#[test]
fn an_entry_that_changes_keeps_the_memory_of_what_was_there() {
    let mut machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    machine.config.agent_socket = Some("/elsewhere/agent.sock".into());
    assert!(machine.chain());
    assert!(machine.text("10-a.conflist").contains("/elsewhere"));
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("10-a.conflist"), LIST);
}

#[test]
fn what_others_edited_before_the_entry_changed_is_kept() {
    let mut machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    let edited = machine.text("10-a.conflist").replace("bridge", "ptp");
    fs::write(machine.path("10-a.conflist"), edited).unwrap();
    machine.config.agent_socket = None;
    assert!(machine.chain());
    assert!(machine.text("10-a.conflist").contains("standalone"));
    uninstall(&machine.config).unwrap();
    assert_eq!(machine.text("10-a.conflist"), LIST.replace("bridge", "ptp"));
}

#[test]
fn without_a_record_the_entry_still_goes() {
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    machine.chain();
    fs::remove_file(machine.path("portolan.installed")).unwrap();
    uninstall(&machine.config).unwrap();
    assert!(!conflist::has_ours(&machine.text("10-a.conflist")));
}

#[test]
fn a_broken_file_is_passed_over_and_no_file_is_an_error_that_says_so() {
    let machine = Machine::new(&[("10-a.conflist", "{\"plugins\": ["), ("20-b.conflist", LIST)]);
    assert!(machine.chain());
    assert!(conflist::has_ours(&machine.text("20-b.conflist")));

    let error = chain(&Machine::new(&[]).config).unwrap_err().to_string();
    assert!(error.contains("no network configuration"), "{error}");
    assert_eq!(chained(&machine.config.conf_dir.join("absent")).unwrap(), None);
}

#[test]
fn the_watch_chains_as_soon_as_somebody_writes() {
    let machine = Machine::new(&[]);
    let (config, stop) = (&machine.config, AtomicBool::new(false));
    let second = Duration::from_secs(5);
    std::thread::scope(|scope| {
        scope.spawn(|| watch(config, &stop));
        let _ends = Ends(&stop);
        fs::write(machine.path("10-a.conflist"), LIST).unwrap();
        eventually(second, || conflist::has_ours(&machine.text("10-a.conflist")));
        fs::write(machine.path("10-a.conflist"), LIST.replace("bridge", "ptp")).unwrap();
        eventually(second, || {
            let text = machine.text("10-a.conflist");
            conflist::has_ours(&text) && text.contains("ptp")
        });
    });
}

/// A scope waits for its threads also when it panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_binary_is_copied_once_and_removed() {
    let machine = Machine::new(&[("10-a.conflist", LIST)]);
    let changed = || copy_binary(&machine.config).unwrap().changed;
    assert!(changed() && !changed());
    let binary = machine.config.binary().unwrap();
    assert_eq!(files::mode(&binary), 0o755);
    uninstall(&machine.config).unwrap();
    assert!(!binary.exists());
}
