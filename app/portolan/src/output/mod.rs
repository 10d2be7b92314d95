//! What a person or a program reads on stdout, and the talk on stderr beside it.
//!
//! stdout is data ([`table`], [`structured`]), stderr is talk ([`problem`]); both are readable without colour.

pub(crate) mod age;
pub(crate) mod instances;
pub(crate) mod paint;
pub(crate) mod problem;
pub(crate) mod stream;
pub(crate) mod structured;
pub(crate) mod table;

use anstream::ColorChoice;

/// Makes the `--color` flag the rule of this process for stdout and stderr.
pub(crate) fn colors(choice: portolan_cli::ColorChoice) {
    match choice {
        portolan_cli::ColorChoice::Always => ColorChoice::Always,
        portolan_cli::ColorChoice::Never => ColorChoice::Never,
        portolan_cli::ColorChoice::Auto => ColorChoice::Auto,
    }
    .write_global();
}

/// Whether what is written to stderr may have colours: by `--color`, `NO_COLOR` and whether it is a terminal.
pub(crate) fn stderr_has_color() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}
