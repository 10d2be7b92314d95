//! The hidden `portolan await`, by which the uninstallation of the Helm chart waits for all nodes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::values::duration;

/// Flags of `portolan await`.
#[derive(Args, Clone, Debug)]
pub struct AwaitArgs {
    /// The DaemonSet that must be ready on each of its nodes.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    pub daemon_set: (String, String),

    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,

    /// How to reach the API server [default: the service account of the Pod].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}
