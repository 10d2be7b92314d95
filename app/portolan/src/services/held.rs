//! Node ports of `up`, held as the ports of instances are: by bound sockets of a process that stays while `up` is
//! restarted, so that nobody else binds a number whose packets would go to a Service instead.

use std::{
    collections::BTreeSet,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
};

use portolan_model::{PortRange, Protocol};
use portolan_ports::{
    hold::Hold,
    holder::{HolderClient, HolderError},
};

use super::settings::ServicesSettings;

/// The socket of that process, in the data folder.
const SOCKET: &str = "node-ports.sock";

/// See the module.
pub(crate) struct HeldPorts {
    socket: PathBuf,
    /// Only these addresses of the machine; empty: all. Where a relay has the loopback, that one is left to it: who binds
    /// all addresses is kept away by one of them.
    addresses: Vec<IpAddr>,
    client: Option<HolderClient>,
    held: BTreeSet<Hold>,
    /// What could not be held, and was told.
    told: BTreeSet<Hold>,
    /// Whether nothing could be held the last time.
    failed: bool,
}

impl HeldPorts {
    pub(crate) fn new(settings: &ServicesSettings) -> Self {
        let own = settings.node.addresses.iter().copied().filter(|address| is_own(*address));
        let addresses = if settings.localhost { own.collect() } else { Vec::new() };
        let socket = settings.data.join(SOCKET);
        let mut held = Self {
            socket,
            addresses,
            client: None,
            held: BTreeSet::new(),
            told: BTreeSet::new(),
            failed: false,
        };
        // What a former life has left is ours: it is known before numbers are given.
        if settings.dataplane
            && held.socket.exists()
            && let Err(error) = held.reach()
        {
            tracing::warn!("node ports may be held by nobody: {error:#}");
        }
        held
    }

    /// Whether we hold this number.
    pub(crate) fn has(&self, port: u16) -> bool {
        self.held.iter().any(|hold| hold.ports.contains(port))
    }

    /// Holds these and no others, as far as it can. What is held by somebody else is told once, and tried again.
    pub(crate) fn set(&mut self, ports: BTreeSet<(Protocol, u16)>) {
        let all = [None];
        let some: Vec<Option<IpAddr>> = self.addresses.iter().copied().map(Some).collect();
        let addresses = if some.is_empty() { &all[..] } else { &some[..] };
        let each = ports.iter().flat_map(|(protocol, port)| {
            let hold = move |address: &Option<IpAddr>| {
                Some(Hold { protocol: *protocol, address: *address, ports: PortRange::single(*port).ok()? })
            };
            addresses.iter().filter_map(hold)
        });
        let wanted: BTreeSet<Hold> = each.collect();
        self.told.retain(|hold| wanted.contains(hold));
        if wanted.is_empty() && self.held.is_empty() {
            return;
        }
        match self.bring(&wanted) {
            Ok(()) => self.failed = false,
            Err(error) => {
                // The next time begins with a new connection, or a new process.
                self.client = None;
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!("node ports cannot be held: {error:#}; trying again");
                }
            }
        }
    }

    fn bring(&mut self, wanted: &BTreeSet<Hold>) -> anyhow::Result<()> {
        let count = self.reach()?.count()?;
        if count != self.held.len() {
            // The process has ended, and a new one knows nothing.
            self.list()?;
        }
        let gone: Vec<Hold> = self.held.difference(wanted).copied().collect();
        let missing: Vec<Hold> = wanted.difference(&self.held).copied().collect();
        let client = self.reach()?;
        if !gone.is_empty() {
            client.release(&gone)?;
        }
        // One by one: what somebody else has keeps nobody from the others.
        let tried = missing.into_iter().map(|hold| (hold, client.hold(&[hold])));
        let tried: Vec<_> = tried.collect();
        self.held.retain(|hold| !gone.contains(hold));
        for (hold, done) in tried {
            match done {
                Ok(()) => _ = self.held.insert(hold),
                Err(error) if !self.told.insert(hold) => tracing::debug!("{error}"),
                Err(error) => tracing::warn!(
                    "the node port {hold} of a Service is not held: {error}; what comes for it goes to the Service all the same"
                ),
            }
        }
        Ok(())
    }

    fn reach(&mut self) -> anyhow::Result<&mut HolderClient> {
        if self.client.is_none() {
            self.client = Some(HolderClient::open(crate::holder::spawned()?, &self.socket)?);
            self.list()?;
        }
        self.client.as_mut().ok_or_else(|| anyhow::anyhow!("the process that holds ports has gone"))
    }

    fn list(&mut self) -> Result<(), HolderError> {
        if let Some(client) = &mut self.client {
            self.held = client.list()?.into_iter().flat_map(Hold::each).collect();
        }
        Ok(())
    }

    /// Ends; with `leave` the process goes on holding.
    pub(crate) fn close(mut self, leave: bool) -> Option<String> {
        let client = self.client.take().filter(|_| !leave)?;
        client.shutdown().err().map(|error| format!("letting go of node ports: {error}"))
    }
}

/// Whether the machine has this address: a Service may be advertised by one that a router has.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
