//! From the words of the command line to a [`Cli`]: flag, then environment, then file, then default.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    Cli,
    config_file::{self, ConfigError},
    go_flags,
};

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// A wrong command line, or a question for help: print it by [`clap::Error::exit`] or [`clap::Error::print`].
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A wrong configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The whole command, for completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments of this process.
pub fn parse() -> Result<Cli, ParseError> {
    parse_from(std::env::args_os())
}

/// Reads these arguments, of which the first is the program's name.
pub fn parse_from(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ParseError> {
    let arguments = go_flags::rewrite(arguments);
    let color = color_choice(&arguments);
    let matches = command()
        .color(color)
        .try_get_matches_from(&arguments)
        .map_err(|error| with_dashes_suggested(error, &arguments))?;
    let Some((verb @ ("up" | "demo"), up)) = matches.subcommand() else {
        return Ok(Cli::from_arg_matches(&matches)?);
    };
    let Some(path) = up.get_one::<PathBuf>("config") else { return Ok(Cli::from_arg_matches(&matches)?) };

    // The file's values become the defaults of the flags: clap then keeps the precedence by itself.
    let defaults = config_file::read(path, &command())?;
    let command = config_file::with_defaults(command().color(color), verb, &defaults);
    let matches = command.try_get_matches_from(&arguments)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// `portolan run -p http ./server` is what people type first: tell them about the two dashes.
fn with_dashes_suggested(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let run =
        arguments.iter().skip(1).any(|word| word == "run") && !arguments.iter().any(|word| word == "--");
    if run && error.kind() == ErrorKind::UnknownArgument {
        let tip = "two dashes go before the command: portolan run -p http -- ./server";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// What `--color` says, before anything else is known: errors of the command line itself honour it as well.
fn color_choice(arguments: &[OsString]) -> clap::ColorChoice {
    let mut words = arguments.iter().skip(1).map_while(|word| word.to_str().filter(|word| *word != "--"));
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            Some(("--color", value)) => Some(value),
            None if word == "--color" => words.next(),
            _ => continue,
        };
        return value.and_then(|value| value.parse().ok()).unwrap_or_default();
    }
    clap::ColorChoice::Auto
}
