//! Colours that mean something: how an instance or a check of this machine is.

use anstyle::{AnsiColor, Style};
use portolan_model::State;

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Look at it soon.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Does not work.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Beside the point.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// `text` in `style`. The stream that it is written to (`anstream`) takes the colours off where they do not belong.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The style of a state.
pub(crate) const fn of_state(state: State) -> Style {
    match state {
        State::Unknown => FAINT,
        State::Passing => GOOD,
        State::Warning => WARN,
        State::Critical | State::Expired => BAD,
    }
}
