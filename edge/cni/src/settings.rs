//! Our own keys of the plugin's configuration.

use std::path::{Path, PathBuf};

use portolan_model::{AGENT_SOCKET, PodRef, PortRange};
use serde::Deserialize;

/// Who does the work, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// `agentSocket`: the agent's socket.
    agent_socket: Option<PathBuf>,
    /// `standalone`: whether the plugin does the work itself.
    standalone: Option<bool>,
    /// `dataDir`: where the plugin alone keeps its journal.
    data_dir: Option<PathBuf>,
    /// `pool`: the range from which the plugin alone takes random ports, such as `"20000-29999"`.
    pub pool: Option<PortRange>,
}

impl Settings {
    /// The agent's socket, unless the plugin does the work itself: when it is told to, or when neither the
    /// configuration nor the runtime knows of an agent or of Kubernetes.
    pub fn agent(&self, pod: Option<&PodRef>) -> Option<&Path> {
        let standalone = self.standalone.unwrap_or(self.agent_socket.is_none() && pod.is_none());
        (!standalone).then(|| self.agent_socket())
    }

    /// Whether the configuration leaves open who does the work.
    pub const fn is_open(&self) -> bool {
        self.standalone.is_none() && self.agent_socket.is_none()
    }

    /// The agent's socket, when there is an agent.
    pub fn agent_socket(&self) -> &Path {
        self.agent_socket.as_deref().unwrap_or(Path::new(AGENT_SOCKET))
    }

    /// Where the plugin alone keeps its journal.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new("/var/lib/portolan/cni"))
    }
}
