//! The help of each verb, kept word for word: what people read is reviewed when it changes.
//!
//! `INSTA_UPDATE=always cargo test -p portolan-cli --test help` writes the new texts.

use clap::CommandFactory;
use portolan_cli::Cli;

/// The long help at a fixed width, without the values that this machine's environment sets.
fn help(verb: Option<&str>) -> String {
    let mut command = Cli::command().term_width(100).color(clap::ColorChoice::Never);
    command.build();
    let command = match verb {
        Some(verb) => command.find_subcommand_mut(verb).unwrap_or_else(|| panic!("no verb {verb}")),
        None => &mut command,
    };
    let text = command.clone().mut_args(|arg| arg.hide_env_values(true)).render_long_help().to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_help_of_portolan_is_as_reviewed() {
    insta::assert_snapshot!("portolan", help(None));
}

#[test]
fn the_help_of_each_verb_is_as_reviewed() {
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        insta::assert_snapshot!(verb.get_name(), help(Some(verb.get_name())));
    }
}

#[test]
fn each_verb_shows_examples() {
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let help = help(Some(verb.get_name()));
        assert!(help.contains("Examples:\n  portolan "), "{}: {help}", verb.get_name());
    }
}

#[test]
fn the_types_are_consistent() {
    Cli::command().debug_assert();
}
