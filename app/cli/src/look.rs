//! How help and errors look: readable without colour, coloured only on a terminal.

use anstyle::{AnsiColor, Effects};
use clap::builder::Styles;

/// The colours of help and of usage errors, shared with the rest of the program's messages.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::Red.on_default().effects(Effects::BOLD))
    .valid(AnsiColor::Cyan.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// The last part of the help of `portolan` itself: what scripts rely on.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; stderr says why, and what to do
  2  the command line or the configuration file is wrong
  `portolan run` exits with the code of its command (128 + signal when one ended it)";
