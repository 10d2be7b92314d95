//! What a runtime tells of a container, and what it may be told to change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::message;

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's name for it.
    pub id: String,
    /// [`crate::PodSandbox::id`] of its Pod.
    pub pod: String,
    /// The container's name in the Pod.
    pub name: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Kubelet's and the runtime's annotations of the container; the Pod's are with the Pod.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its environment as `NAME=value`: the image's and the Pod's together, which cannot be told apart.
    pub env: Vec<String>,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// Its process on the node, while it runs.
    pub pid: Option<u32>,
}

impl Container {
    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        // The last one counts, as for the runtime.
        let mut pairs = self.env.iter().rev().filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerState {
    /// Not said; also that of a container that is about to be created.
    #[default]
    Unknown = 0,
    /// Created, not started.
    Created = 1,
    /// Frozen.
    Paused = 2,
    /// Started.
    Running = 3,
    /// Ended.
    Stopped = 4,
}

/// A mount, as in the OCI specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// A path on the node, for bind mounts.
    pub source: PathBuf,
    /// A path in the container.
    pub destination: PathBuf,
    /// The file system's type; `bind` for bind mounts.
    pub kind: String,
    /// As for mount(8).
    pub options: Vec<String>,
}

impl Mount {
    /// `source` of the node, read-only at `destination` of the container.
    ///
    /// To show changes later, mount the *folder* of a file: a file that is replaced by rename, which is the only
    /// atomic way, stays the old one in a mount of the file itself.
    pub fn read_only(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        // `rprivate`: the runtime refuses other propagations where the node's mount is private itself.
        let options = ["bind", "ro", "rprivate", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        Self { source: source.into(), destination: destination.into(), kind: "bind".to_owned(), options }
    }
}

/// What to change of a container before it is created. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerAdjustment {
    /// Environment variables; they replace those of the image and of the Pod. Of equal names the last one counts.
    pub env: Vec<(String, String)>,
    /// Mounts; they replace those of the same destination.
    pub mounts: Vec<Mount>,
    /// Annotations of the container (not of the Pod) in the runtime.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerAdjustment {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.env.is_empty() && self.mounts.is_empty() && self.annotations.is_empty()
    }
}

impl From<message::Container> for Container {
    fn from(container: message::Container) -> Self {
        let state = match container.state {
            1 => ContainerState::Created,
            2 => ContainerState::Paused,
            3 => ContainerState::Running,
            4 => ContainerState::Stopped,
            _ => ContainerState::Unknown,
        };
        Self {
            id: container.id,
            pod: container.pod_sandbox_id,
            name: container.name,
            state,
            annotations: container.annotations,
            labels: container.labels,
            env: container.env,
            mounts: container.mounts.into_iter().map(Mount::from).collect(),
            pid: (container.pid != 0).then_some(container.pid),
        }
    }
}

impl From<Container> for message::Container {
    fn from(container: Container) -> Self {
        Self {
            id: container.id,
            pod_sandbox_id: container.pod,
            name: container.name,
            state: container.state as i32,
            labels: container.labels,
            annotations: container.annotations,
            env: container.env,
            mounts: container.mounts.into_iter().map(message::Mount::from).collect(),
            pid: container.pid.unwrap_or(0),
        }
    }
}

impl From<message::Mount> for Mount {
    fn from(mount: message::Mount) -> Self {
        Self {
            source: mount.source.into(),
            destination: mount.destination.into(),
            kind: mount.kind,
            options: mount.options,
        }
    }
}

impl From<Mount> for message::Mount {
    fn from(mount: Mount) -> Self {
        // Protobuf's strings are UTF-8. Paths that are not would name something else; ours are made of names.
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            destination: text(&mount.destination),
            kind: mount.kind,
            source: text(&mount.source),
            options: mount.options,
        }
    }
}

impl From<ContainerAdjustment> for message::ContainerAdjustment {
    fn from(adjustment: ContainerAdjustment) -> Self {
        // The runtime takes a name that is set twice for a conflict of two plugins, and fails the container.
        let mut env: Vec<message::KeyValue> = Vec::with_capacity(adjustment.env.len());
        for (key, value) in adjustment.env {
            match env.iter_mut().find(|pair| pair.key == key) {
                Some(pair) => pair.value = value,
                None => env.push(message::KeyValue { key, value }),
            }
        }
        Self {
            annotations: adjustment.annotations,
            mounts: adjustment.mounts.into_iter().map(message::Mount::from).collect(),
            env,
        }
    }
}

impl From<message::ContainerAdjustment> for ContainerAdjustment {
    fn from(adjustment: message::ContainerAdjustment) -> Self {
        Self {
            env: adjustment.env.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            mounts: adjustment.mounts.into_iter().map(Mount::from).collect(),
            annotations: adjustment.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_twice_is_sent_once_with_the_last_value() {
        let pairs = [("A", "1"), ("B", "2"), ("A", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let sent = message::ContainerAdjustment::from(ContainerAdjustment {
            env: pairs.to_vec(),
            ..ContainerAdjustment::default()
        });
        let sent: Vec<_> = sent.env.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
        assert_eq!(sent, [("A", "3"), ("B", "2")]);
    }

    #[test]
    fn the_last_of_equal_variables_counts() {
        let env = ["A=1", "B=x=y", "A=2"].map(str::to_owned).to_vec();
        let container = Container { env, ..Container::default() };
        assert_eq!(container.variable("A"), Some("2"));
        assert_eq!(container.variable("B"), Some("x=y"));
        assert_eq!(container.variable("C"), None);
    }
}
