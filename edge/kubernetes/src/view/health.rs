//! How sure an answer of the view is, and why there is none.

use std::time::Duration;

use crate::{ApiError, answered::Answered, mirror::MirrorState};

/// Whether the view can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewHealth {
    /// Whether everything was seen once.
    pub synced: bool,
    /// For how long some watch has failed: what is answered may be that old.
    pub away: Option<Duration>,
    /// Why it fails.
    pub error: Option<ApiError>,
    /// How often some kind was listed as a whole: once for each at the start, and again when a watch has expired.
    pub lists: u64,
}

impl ViewHealth {
    /// Of several watches together.
    pub(crate) fn of<'a>(states: impl Iterator<Item = &'a MirrorState> + Clone, answered: &Answered) -> Self {
        let failing: Vec<_> = states.clone().filter(|state| state.is_failing(answered)).collect();
        Self {
            synced: states.clone().all(|state| state.synced),
            away: failing.iter().filter_map(|state| state.away).min().map(|since| since.elapsed()),
            error: failing.iter().find_map(|state| state.error.clone()),
            lists: states.map(|state| state.lists).sum(),
        }
    }
}

/// The view is not complete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after {after:?} nothing is known yet of {missing}{because}")]
pub struct NotSynced {
    /// How long was waited.
    pub after: Duration,
    /// The kinds that are missing, separated by commas.
    pub missing: String,
    pub(super) because: String,
}

/// Why there is no Pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// It was deleted, or never was.
    #[error("there is no Pod {namespace}/{name}")]
    Missing {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Another Pod has the name now.
    #[error("the Pod {namespace}/{name} was replaced by one with the UID {uid}")]
    Replaced {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The UID of the present one.
        uid: String,
    },
    /// Nothing is known, and the API server does not say.
    #[error(transparent)]
    Api(#[from] ApiError),
}
