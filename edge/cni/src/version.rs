//! Versions of the specification, and the answer to VERSION.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{CniError, code};

/// A version of the specification that is served.
///
/// 0.1.0 and 0.2.0 know no chain, yet libcni gives `prevResult` to plugins of a list with these versions too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0: VERSION.
    V0_2_0,
    /// 0.3.0: lists of plugins, several addresses.
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK, `prevResult` at DEL.
    V0_4_0,
    /// 1.0.0
    V1_0_0,
    /// 1.1.0: GC, STATUS.
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version of a configuration that may be wrong otherwise, to tell an error in; the newest when it has none.
    pub fn of(stdin: &[u8]) -> Self {
        serde_json::from_slice(stdin)
            .ok()
            .and_then(|Asked { version }| version.parse().ok())
            .unwrap_or(Self::NEWEST)
    }

    /// As in `cniVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SpecVersion {
    type Err = CniError;

    /// An empty text is 0.1.0: the first version had no `cniVersion` in its configuration.
    fn from_str(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            CniError::new(code::VERSION, "incompatible CNI versions")
                .with_details(format!("the configuration has cniVersion {text:?}; served are {known}"))
        })
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "cniVersion")]
    version: String,
}

/// The answer to VERSION: "the value of `cniVersion` specified on input" and the list.
pub fn version_reply(stdin: &[u8]) -> String {
    #[derive(Serialize)]
    struct Reply {
        #[serde(rename = "cniVersion")]
        version: String,
        #[serde(rename = "supportedVersions")]
        supported: [&'static str; 7],
    }
    // libcni sends a version, others send nothing at all.
    let asked = serde_json::from_slice::<Asked>(stdin).map(|asked| asked.version);
    let version = asked.unwrap_or_else(|_| SpecVersion::NEWEST.as_str().to_owned());
    let reply = Reply { version, supported: SpecVersion::ALL.map(SpecVersion::as_str) };
    serde_json::to_string(&reply).unwrap_or_default()
}
