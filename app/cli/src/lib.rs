//! The command line: clap types only, so that help, completions and man pages need no engine.
//!
//! [`parse()`] is the door: it rewrites the original's single-dash flags (`go_flags`), takes the defaults of `up`
//! from its configuration file (`config_file`) and gives a [`Cli`]. What each verb does is in `app/portolan`, one
//! folder or file per verb.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod cni;
mod config_file;
mod expose;
mod global;
mod go_flags;
mod look;
pub mod pages;
mod parse;
mod proxy;
mod query;
mod registry;
mod relay;
mod rollout;
mod run;
mod serve;
mod trace;
mod up;
mod values;
mod verbs;
mod webhook;

pub use agent::{AgentArgs, Count};
pub use clap::ColorChoice;
pub use cni::{CniArgs, CniInstallArgs, CniPlaceArgs, CniVerb};
pub use config_file::ConfigError;
pub use expose::{Affinity, DeleteArgs, DryRun, ExposeArgs, ObjectFormat, ServiceKind};
pub use global::{Global, LogFormat, LogLevel, TokenError};
pub use look::STYLES;
pub use parse::{ParseError, command, parse, parse_from};
pub use proxy::{
    BindAddress, CountingMode, LocalMode, PROXY_SOCKET, ProxyArgs, ProxyStatusArgs, ProxyVerb, bind_address,
    go_duration,
};
pub use query::{Filter, Format, GetArgs, ListArgs, PortsArgs, ResolveArgs, WatchArgs};
pub use registry::RegistryArgs;
pub use relay::{ProxyVersion, RelayArgs, RelayListen};
pub use rollout::AwaitArgs;
pub use run::{DemoArgs, HolderArgs, LaunchArgs, Network, Restart, RunArgs};
pub use serve::ServeArgs;
pub use trace::TraceArgs;
pub use up::{InstanceSubnet, UpArgs};
pub use values::{Label, Pool};
pub use verbs::{Cli, CompletionsArgs, DoctorArgs, ManArgs, Verb};
pub use webhook::WebhookArgs;
