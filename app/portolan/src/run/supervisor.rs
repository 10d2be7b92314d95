//! The life of one copy: lease, start, register, watch over, restart, leave.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use portolan_client::{Client, ClientError, Keeper};
use portolan_model::{
    Incarnation, InstancePort, LeaseReply, LeaseRequest, Name, Network, Owner, Registration,
};
use rustix::process::Signal;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{
    bound,
    child::{self, Running},
    node_client::NodeClient,
    plan::RunPlan,
    restart::{Next, RestartPolicy},
    signals,
};

/// One copy of the command, and everything that is done for it.
pub(crate) struct Supervisor<'a> {
    plan: &'a RunPlan,
    name: Name,
    node: NodeClient,
    /// The life of the lease, which is this supervisor's; each start of the command is a life of its own in the catalog.
    life: Incarnation,
    owner: Owner,
    ports_file: PathBuf,
    signals: broadcast::Receiver<Signal>,
    stop: CancellationToken,
}

/// How the time of one command ended.
enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Because `run` was asked to end.
    Stopped(ExitStatus),
    /// It was stopped because it did not become healthy in time.
    NeverHealthy(ExitStatus),
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        plan: &'a RunPlan,
        name: &Name,
        client: Client,
        data: &Path,
        signals: broadcast::Receiver<Signal>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start_time = portolan_netlink::process::start_time(pid).context("reading /proc/self/stat")?;
        Ok(Self {
            plan,
            name: name.clone(),
            node: NodeClient { client },
            life: new_life(),
            owner: Owner::Process { pid, start_time },
            ports_file: super::ports_file(data, name),
            signals,
            stop,
        })
    }

    /// Runs the copy to its end and gives everything back, whatever happened. The command's status, or `None` when
    /// it was asked to end before it had started.
    pub(crate) async fn supervise(mut self) -> anyhow::Result<Option<ExitStatus>> {
        let result = match self.lease().await {
            Ok(_) if self.stop.is_cancelled() => Ok(None),
            Ok(lease) => self.lives(lease).await,
            Err(_) if self.stop.is_cancelled() => Ok(None),
            Err(error) => Err(error),
        };
        self.give_back().await;
        result
    }

    /// One life after the other.
    async fn lives(&mut self, mut lease: LeaseReply) -> anyhow::Result<Option<ExitStatus>> {
        let mut restart = RestartPolicy::new(self.plan.restart);
        loop {
            restart.began();
            let status = match self.one_life(&lease).await? {
                Ended::Stopped(status) => return Ok(Some(status)),
                Ended::NeverHealthy(status) => {
                    let limit = humantime::format_duration(self.plan.ready_timeout);
                    tracing::error!(instance = %self.name, "stopped: not healthy within {limit}");
                    status
                }
                Ended::Exited(status) => status,
            };
            let delay = match restart.ended(status) {
                Next::End => return Ok(Some(status)),
                Next::Again(delay) => delay,
            };
            let rounded = Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(
                instance = %self.name, %status,
                "the command ended; starting it again in {}", humantime::format_duration(rounded)
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(Some(status)),
            }
            // In doubt, ask: after a restart of `up` this is what tells it about us again.
            let again = self.lease().await;
            if self.stop.is_cancelled() {
                return Ok(Some(status));
            }
            lease = again?;
        }
    }

    /// From start to end of the command once.
    async fn one_life(&mut self, lease: &LeaseReply) -> anyhow::Result<Ended> {
        write_ports(&self.ports_file, lease).context("writing the file of ports")?;
        let gives_up = lease.network == Network::Host && !lease.ports.is_empty();
        if gives_up && !self.plan.socket_activation {
            self.node.give_up_holds(&self.name, &self.life).await?;
        }
        let running = child::start(self.plan, &self.name, lease, &self.ports_file)
            .with_context(|| format!("starting {}", self.plan.program.display()))?;
        tracing::info!(instance = %self.name, pid = running.pid, ports = %show(lease), "started");

        let keeper = Keeper::start(self.node.client.clone(), self.registration(lease));
        let truth = (lease.network == Network::Host)
            .then(|| tokio::spawn(bound::tell(self.name.clone(), running.pid, lease.ports.clone())));
        let ended = self.watch_over(running).await;
        if let Some(truth) = truth {
            truth.abort();
        }
        keeper.leave().await;
        if gives_up && let Err(error) = self.node.hold_again(&self.name, &self.life).await {
            tracing::warn!(instance = %self.name, %error, "the ports are not held while the command is down");
        }
        ended
    }

    /// Waits for whichever comes first: the command's end, a signal, the order to stop, too long without health.
    async fn watch_over(&mut self, mut running: Running) -> anyhow::Result<Ended> {
        let healthy = self.healthy_in_time();
        tokio::pin!(healthy);
        let mut waiting_for_health = self.plan.check.is_some() && !self.plan.ready_timeout.is_zero();
        loop {
            tokio::select! {
                status = running.child.wait() => return Ok(Ended::Exited(status?)),
                () = self.stop.cancelled() => return Ok(Ended::Stopped(stop(&mut running, self.plan.stop_timeout).await?)),
                healthy = &mut healthy, if waiting_for_health => {
                    waiting_for_health = false;
                    if !healthy {
                        return Ok(Ended::NeverHealthy(stop(&mut running, self.plan.stop_timeout).await?));
                    }
                }
                Ok(signal) = self.signals.recv() => {
                    if !signals::stops(signal) {
                        signals::send(running.pid, running.own_group, signal);
                    }
                }
            }
        }
    }

    /// Whether the catalog shows the instance as served before the time is up. Borrows nothing of `self`.
    fn healthy_in_time(&self) -> impl Future<Output = bool> + use<> {
        let (client, name, limit) = (self.node.client.clone(), self.name.clone(), self.plan.ready_timeout);
        async move {
            let looks = async {
                loop {
                    if client.get(&name).await.is_ok_and(|instance| instance.state.is_served()) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            tokio::time::timeout(limit, looks).await.is_ok()
        }
    }

    /// Asks for the lease; an `up` that is just being restarted is waited for, unless all is to stop.
    ///
    /// A request that is under way is never left before its answer, also when all is to stop: `up` could read it
    /// after it has read that the lease is given back, and would keep what nobody gives back any more.
    async fn lease(&self) -> anyhow::Result<LeaseReply> {
        let request = LeaseRequest {
            instance: self.name.clone(),
            incarnation: self.life.clone(),
            owner: self.owner.clone(),
            network: self.plan.network,
            ports: self.plan.ports.clone(),
        };
        let again = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .with_max_times(8);
        let leased = (|| self.node.lease(&request))
            .retry(again)
            .when(|error| error.is_transient() && !self.stop.is_cancelled())
            .await;
        leased.map_err(|error| match error {
            // The node's own words say all that a person needs.
            ClientError::Refused { message, .. } => anyhow::anyhow!(message),
            error => error.into(),
        })
    }

    /// Gives ports and namespace back; reports and goes on when that fails, as the node notices our end anyway.
    async fn give_back(&self) {
        if let Err(error) = self.node.release(&self.name, &self.life).await
            && !error.is_not_found()
        {
            tracing::warn!(instance = %self.name, %error, "cannot give the ports back; `up` does so when this process has ended");
        }
        match std::fs::remove_file(&self.ports_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.ports_file.display(), %error, "cannot remove");
            }
            _ => {}
        }
    }

    fn registration(&self, lease: &LeaseReply) -> Registration {
        let mut registration = Registration::new(self.name.clone());
        registration.incarnation = Some(new_life());
        registration.service = Some(self.plan.service.clone());
        registration.node = Some(lease.node.clone());
        registration.addresses = addresses(lease);
        registration.ports = lease
            .ports
            .iter()
            .map(|port| InstancePort {
                name: port.name.clone(),
                protocols: port.protocols,
                port: port.host,
                container: (port.container != port.host.first()).then_some(port.container),
            })
            .collect();
        registration.labels.clone_from(&self.plan.labels);
        registration.check.clone_from(&self.plan.check);
        registration
    }
}

/// Where clients reach it: the one address that all its ports are bound to, or the node's.
fn addresses(lease: &LeaseReply) -> Vec<IpAddr> {
    let mut bound = lease.ports.iter().map(|port| port.address);
    match bound.next() {
        Some(Some(first)) if bound.all(|address| address == Some(first)) => vec![first],
        _ => lease.addresses.clone(),
    }
}

/// SIGTERM, and SIGKILL when that was not enough.
async fn stop(running: &mut Running, patience: Duration) -> std::io::Result<ExitStatus> {
    signals::send(running.pid, running.own_group, Signal::TERM);
    if let Ok(status) = tokio::time::timeout(patience, running.child.wait()).await {
        return status;
    }
    tracing::warn!(
        pid = running.pid,
        "still there {} after SIGTERM: killed",
        humantime::format_duration(patience)
    );
    signals::send(running.pid, running.own_group, Signal::KILL);
    running.child.wait().await
}

/// 128 random bits: two lives never share one.
fn new_life() -> Incarnation {
    let text = format!("{:032x}", rand::random::<u128>());
    Incarnation::new(text).unwrap_or_else(|| unreachable!("32 hexadecimal digits are an incarnation"))
}

fn show(lease: &LeaseReply) -> String {
    lease.ports.iter().map(|p| format!("{}={}/{}", p.name, p.host, p.protocols)).collect::<Vec<_>>().join(" ")
}

/// Whole or not at all: the command may read it at any time.
fn write_ports(file: &Path, lease: &LeaseReply) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_string_pretty(&lease.ports)?)?;
    std::fs::rename(new, file)
}
