//! The commands of the documents print what the documents show.

use std::path::Path;

use portolan_testkit::{Portolan, need_root};
use portolan_tests::{console, machine::Picture, world::connected};

#[test]
fn every_command_of_the_readme_prints_what_it_shows() {
    need_root!();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("a README");
    assert!(!console::steps(&readme).is_empty(), "the README shows no command");
    let machine = Portolan::new();
    let _world = connected(&machine);
    console::run(&machine, "README.md", &readme);
    drop(machine);
}

#[test]
fn a_shell_session_is_run_as_documents_show_it() {
    need_root!();
    let machine = Portolan::new();
    // A loop, as a Ctrl-C that comes while dash starts a program is lost for that one program: its child takes the
    // shell's handler with it until it has become the program, and the shell waits for its end.
    let before = Picture::of(&machine);
    console::run(
        &machine,
        "this test",
        "```console\n$ echo one && echo 2 files\none\n3 files\n$ sleep 1000 &\n$ printf 'a\\nb\\nc\\n'\na\n…\n\
         $ sh -c 'echo begun; while :; do sleep 0.1; done'\nbegun\n^C\n$ kill %1\n```\n",
    );
    // The folder with the program is the session's own.
    let left = Picture::of(&machine).differences(&before);
    assert!(left.iter().all(|topic| topic.starts_with("files")), "{left:#?}");
}
