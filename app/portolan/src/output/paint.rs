//! Colours that mean something: how an instance or a check of this machine is.

use anstyle::{AnsiColor, Style};
use portolan_model::State;

/// How things are. The colour only repeats what the text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well: green.
    Good,
    /// Look at it soon: yellow.
    Warn,
    /// Does not work: red.
    Bad,
    /// Not known, or gone: dim.
    Faint,
}

impl Tone {
    /// For text outside of tables.
    pub(crate) const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

impl From<State> for Tone {
    fn from(state: State) -> Self {
        match state {
            State::Unknown => Self::Faint,
            State::Passing => Self::Good,
            State::Warning => Self::Warn,
            State::Critical | State::Expired => Self::Bad,
        }
    }
}
