//! The verbs that ask: `list`, `get`, `watch`, `resolve`, `ports`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use portolan_model::{Name, PortFilter, State};

use crate::Label;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// JSON, as in the API.
    Json,
    /// The same in YAML.
    Yaml,
}

/// Which instances.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// Only the instance of this name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<Name>,

    /// Only copies of this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<Name>,

    /// Only those with this label. Repeatable: all must match.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,

    /// Only those with a port of this name or number.
    #[arg(long, value_name = "PORT")]
    pub port: Option<PortFilter>,

    /// Only those in this state; repeatable, any may match.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub states: Vec<State>,
}

impl From<Filter> for portolan_model::Filter {
    fn from(filter: Filter) -> Self {
        Self {
            name: filter.name,
            service: filter.service,
            labels: filter.labels.into_iter().map(|label| (label.key, label.value)).collect(),
            port: filter.port,
            states: filter.states,
        }
    }
}

/// Flags of `portolan list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Which ones.
    #[command(flatten)]
    pub filter: Filter,
}

/// Flags of `portolan get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// The instance's name; or `services`, or `service NAME`.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Of a Service: its name.
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,

    /// Of Services: only those of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Flags of `portolan watch`.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// How to print; json is one object per line, yaml one document per change.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Which ones.
    #[command(flatten)]
    pub filter: Filter,
}

/// Flags of `portolan resolve`.
#[derive(Args, Clone, Debug)]
pub struct ResolveArgs {
    /// An instance or service (web-0), or an SRV name (_http._tcp.web); the zone is added when it is missing.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The DNS server to ask.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_DNS", default_value = "127.0.0.1:10053")]
    pub dns: SocketAddr,

    /// The zone that names are under.
    #[arg(long, value_name = "ZONE", env = "PORTOLAN_ZONE", default_value = "portolan.internal")]
    pub zone: String,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Flags of `portolan ports`.
#[derive(Args, Clone, Debug)]
pub struct PortsArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}
