//! `portolan cni`: the CNI plugin's place in a runtime's configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `portolan cni`.
#[derive(Args, Clone, Debug)]
pub struct CniArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: CniVerb,
}

/// What to do with the plugin.
#[derive(Subcommand, Clone, Debug)]
pub enum CniVerb {
    /// Copy this program to the runtime's plugins and chain it into the first network configuration
    Install(CniInstallArgs),

    /// Give the configuration back as it was and remove the plugin
    Uninstall(CniPlaceArgs),

    /// Say whether plugin, configuration and agent are there; exits with 1 when one is not
    Status(CniPlaceArgs),
}

/// Where the runtime looks.
#[derive(Args, Clone, Debug)]
pub struct CniPlaceArgs {
    /// Where the runtime has its plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,

    /// Where the runtime has its configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,

    /// The agent's socket.
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTOLAN_AGENT_SOCKET",
        default_value = portolan_model::AGENT_SOCKET
    )]
    pub agent_socket: PathBuf,
}

/// Flags of `portolan cni install`.
#[derive(Args, Clone, Debug)]
pub struct CniInstallArgs {
    /// Where the runtime looks.
    #[command(flatten)]
    pub place: CniPlaceArgs,

    /// Without an agent: the plugin maps ports itself, in the place of portmap.
    #[arg(long, conflicts_with = "agent_socket")]
    pub standalone: bool,

    /// Leave the portMappings of the runtime to the portmap plugin that is in the chain.
    #[arg(long)]
    pub keep_portmap: bool,

    /// Stay, and chain again whenever somebody else writes the configuration.
    #[arg(long)]
    pub watch: bool,
}
