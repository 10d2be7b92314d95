//! `portolan run` and its relatives: `demo`, and the hidden `launch` and `holder` that they start.
// The comments of flags are their help texts, in which brackets mean "may be left out".
#![allow(rustdoc::broken_intra_doc_links)]

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use portolan_model::{CheckSpec, Name, PortRequest, PublishedPort};

use crate::{
    Label, UpArgs,
    values::{duration, duration_or_zero},
};

/// Flags of `portolan run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// A port to publish: NAME[/PROTO[+PROTO]][:COUNT][=[[ADDRESS:]HOST]:CONTAINER][,pool=POOL]. Repeatable.
    #[arg(short = 'p', long = "port", visible_alias = "publish", value_name = "SPEC")]
    pub ports: Vec<PortRequest>,

    /// The instance's name; copies get -0, -1 and so on behind it [default: from the command].
    #[arg(long, value_name = "NAME")]
    pub name: Option<Name>,

    /// The service that it is a copy of: DNS answers with all copies under this name [default: the name].
    #[arg(long, value_name = "NAME")]
    pub service: Option<Name>,

    /// How many copies to run.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub replicas: u16,

    /// A network namespace of its own, or the host's network [default: own as root, else host].
    #[arg(long, value_name = "KIND")]
    pub network: Option<Network>,

    /// A health check: http:/PATH[@PORT], tcp[@PORT], then ,interval=10s,timeout=2s,fall=3,rise=2.
    #[arg(long, value_name = "SPEC")]
    pub health: Option<CheckSpec>,

    /// A label of the instance. Repeatable.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,

    /// When to start the command again after it ended. A command that fails within its first second is not.
    #[arg(long, value_name = "WHEN", default_value = "on-failure")]
    pub restart: Restart,

    /// Hand the bound sockets to the command (LISTEN_FDS), so that no port is free for a moment. Host network only.
    #[arg(long)]
    pub socket_activation: bool,

    /// How long a copy may take until its health check passes; 0 waits for ever.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration_or_zero)]
    pub ready_timeout: Duration,

    /// How long the command may take to end after SIGTERM before it is killed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub stop_timeout: Duration,

    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Which network a command runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// A network namespace of its own; published ports are mapped to it. Needs root.
    Own,
    /// The machine's; the command binds the published port itself.
    Host,
}

impl From<Network> for portolan_model::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::Own => Self::Own,
            Network::Host => Self::Host,
        }
    }
}

/// When a command is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never: `run` ends with the command's code.
    No,
    /// When it ended with a code other than 0, or by a signal.
    OnFailure,
    /// Whenever it ended.
    Always,
}

/// Flags of `portolan demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How many copies of the dynamic-port server to run.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub replicas: u16,

    /// A network namespace of its own for each copy, or the host's network [default: own as root, else host].
    #[arg(long, value_name = "KIND")]
    pub network: Option<Network>,

    /// The flags of `portolan up`.
    #[command(flatten)]
    pub up: UpArgs,
}

/// Arguments of the hidden `portolan holder`, as `portolan up` writes them.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct HolderArgs {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Arguments of the hidden `portolan launch`, as `portolan run` writes them.
#[derive(Args, Clone, Debug)]
pub struct LaunchArgs {
    /// The network namespace to enter: a path such as /run/netns/portolan-web-0.
    #[arg(long)]
    pub namespace: Option<PathBuf>,

    /// The file to mount over /etc/resolv.conf, in a mount namespace of the command's own.
    #[arg(long)]
    pub resolv_conf: Option<PathBuf>,

    /// The supervisor's pid: the command is killed when that process ends.
    #[arg(long)]
    pub parent: u32,

    /// The holder's socket, to take the sockets of --activate from.
    #[arg(long, requires = "activate")]
    pub holder: Option<PathBuf>,

    /// A published port as JSON, whose sockets the command gets from descriptor 3 on (LISTEN_FDS). Repeatable.
    #[arg(long, value_parser = published_port)]
    pub activate: Vec<PublishedPort>,

    /// What to become.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// As `portolan run` writes it.
fn published_port(json: &str) -> Result<PublishedPort, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}
