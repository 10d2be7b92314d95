//! The way to a registry and to the node of this machine, for verbs that ask.

use portolan_cli::Global;
use portolan_client::{Client, Endpoint};

/// The registry that `--server` names.
pub(crate) fn registry(global: &Global) -> anyhow::Result<Client> {
    Ok(Client::new(global.server.parse()?, global.read_token()?))
}

/// The `portolan up` whose data folder this is.
pub(crate) fn node(global: &Global) -> Client {
    Client::new(Endpoint::Unix(global.data_dir().join(crate::run::SOCKET)), None)
}
