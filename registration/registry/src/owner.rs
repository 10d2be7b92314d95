//! The one task that writes the catalog. Everybody else sends it a [`Command`].
//!
//! It works in batches: whatever has arrived is taken together, is written to the store in one transaction with one
//! fsync, is made so, and is published once. So a thousand registrations at the same time cost a few fsyncs, and
//! nobody sees a registration that a power cut could take back.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, SystemTime},
};

use portolan_model::{Incarnation, Name, Registered, State};
use rand::RngExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    RegistryConfig, RegistryError,
    admit::{Accepted, Admission, Claim},
    evict::PatientClock,
    health::{First, Health, Report},
    registry::Shared,
    store::{Store, StoreError, StoreThread, Write},
    table::{Now, Prepared, Table},
    watch::Board,
};

/// The most commands of one batch.
const BATCH: usize = 256;
/// At most this long between two steps of the clock of leases, and between a change of state and the store.
const STEP: Duration = Duration::from_secs(1);
/// Indexes that are set aside in the store at a time: no restart gives one again, and few writes are needed for it.
const INDEXES: u64 = 1 << 20;

/// What the owner is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Register { accepted: Box<Accepted>, reply: Reply<Registered> },
    Renew { name: Name, incarnation: Option<Incarnation>, claim: Claim, reply: Reply<()> },
    Leave { name: Name, incarnation: Option<Incarnation>, claim: Claim, reply: Reply<()> },
}

type Reply<T> = oneshot::Sender<Result<T, RegistryError>>;

/// What is done once the store has it.
enum Staged {
    Register(Box<Prepared>, Reply<Registered>),
    Leave(Name, Reply<()>),
}

pub(crate) struct Owner {
    table: Table,
    clock: PatientClock,
    store: StoreThread,
    health: Health,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Command>,
    reports: mpsc::Receiver<Report>,
    /// Indexes below this one may be given.
    reserved: u64,
    next_save: Instant,
}

impl Owner {
    pub(crate) async fn start(
        config: &RegistryConfig,
        store: Box<dyn Store>,
        requests: mpsc::Receiver<Command>,
    ) -> Result<(Self, Arc<Shared>), StoreError> {
        let (store, stored) = StoreThread::start(store).await?;
        let reserved = stored.index + INDEXES;
        store.write(vec![Write::Index(reserved)]).await?;
        let mut clock = PatientClock::new(Instant::now());
        let now = Now { elapsed: clock.step(Instant::now()), wall: wall() };
        let mut table = Table::new(config, stored.index);
        table.load(stored.records, now);
        let shared = Arc::new(Shared {
            board: Board::new(table.snapshot().clone(), config.history),
            admission: Admission::new(config),
            metrics: Arc::clone(&config.metrics),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            store_works: AtomicBool::new(true),
        });
        let (looks, reports) = mpsc::channel(1024);
        let mut health = Health::new(config.checks, looks, Arc::clone(&config.metrics));
        for name in table.names() {
            health.agree(
                name,
                table.target(name),
                table.state(name).unwrap_or(State::Unknown),
                First::Spread,
            );
        }
        let next_save = Instant::now() + STEP;
        let owner = Self {
            table,
            clock,
            store,
            health,
            shared: Arc::clone(&shared),
            requests,
            reports,
            reserved,
            next_save,
        };
        owner.gauges();
        Ok((owner, shared))
    }

    /// Works until the registry is shut down or nobody holds a handle any more.
    pub(crate) async fn run(mut self) {
        // Whatever ends this task, nobody must wait for it for ever.
        let _ended = self.shared.ended.clone().drop_guard();
        let closing = self.shared.closing.clone();
        loop {
            let mut commands = Vec::new();
            let mut reports = Vec::new();
            let now = Instant::now();
            let due = self.table.next_due().map(|due| due.saturating_sub(self.clock.step(now)));
            let wake = now + due.unwrap_or(STEP).min(STEP);
            let open = tokio::select! {
                received = self.requests.recv_many(&mut commands, BATCH) => received > 0,
                received = self.reports.recv_many(&mut reports, BATCH) => received > 0,
                () = sleep_until(wake) => true,
                () = closing.cancelled() => false,
            };
            // Renewals that have arrived count before leases run out.
            self.take(commands).await;
            let now = self.now();
            let mut touched = BTreeSet::new();
            for Report { target, state, output } in reports {
                if self.table.observed(&target, state, output, now) {
                    touched.insert(target.key.name);
                }
            }
            let expired = self.table.tick(now);
            self.shared.metrics.evictions.inc_by(expired as u64);
            if Instant::now() >= self.next_save {
                self.save().await;
            }
            self.publish();
            if !open {
                break;
            }
        }
        self.save().await;
        self.publish();
        self.store.close().await;
    }

    fn now(&mut self) -> Now {
        Now { elapsed: self.clock.step(Instant::now()), wall: wall() }
    }

    /// Does what was asked for. Commands about the same name are done one after the other; all others share a write.
    async fn take(&mut self, commands: Vec<Command>) {
        let mut staged = Vec::new();
        let mut names = BTreeSet::new();
        let mut writes = Vec::new();
        for command in commands {
            if names.contains(command.name()) {
                self.finish(std::mem::take(&mut staged), std::mem::take(&mut writes)).await;
                names.clear();
            }
            let now = self.now();
            let name = command.name().clone();
            match command {
                Command::Renew { name, incarnation, claim, reply } => {
                    let may = self.table.may_change(&name, &claim);
                    let _ = reply.send(may.and_then(|()| self.table.renew(&name, incarnation.as_ref(), now)));
                }
                Command::Leave { incarnation, claim, reply, .. } => {
                    let may = self.table.may_change(&name, &claim);
                    match may.and_then(|()| self.table.may_leave(&name, incarnation.as_ref())) {
                        Ok(()) => {
                            writes.push(Write::Remove(name.clone()));
                            names.insert(name.clone());
                            staged.push(Staged::Leave(name, reply));
                        }
                        Err(error) => drop(reply.send(Err(error))),
                    }
                }
                Command::Register { accepted, reply } => match self.table.prepare(*accepted, fresh(), now) {
                    Ok(prepared) => {
                        if prepared.must_store {
                            writes.push(Write::Put(Box::new(prepared.record.clone())));
                        }
                        names.insert(name);
                        staged.push(Staged::Register(Box::new(prepared), reply));
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
            }
        }
        self.finish(staged, writes).await;
    }

    /// Writes, then makes it so and publishes, then replies. When the write fails, nothing has happened.
    async fn finish(&mut self, staged: Vec<Staged>, writes: Vec<Write>) {
        let written = if writes.is_empty() { Ok(()) } else { self.write(writes).await };
        let now = self.now();
        let mut replies: Vec<Box<dyn FnOnce() + Send>> = Vec::with_capacity(staged.len());
        for job in staged {
            match (job, &written) {
                (Staged::Register(prepared, reply), Err(error)) if prepared.must_store => {
                    let error = RegistryError::Store(Arc::clone(error));
                    replies.push(Box::new(move || drop(reply.send(Err(error)))));
                }
                (Staged::Register(prepared, reply), _) => {
                    self.shared.metrics.registration(prepared.outcome.as_str());
                    let registered = self.table.commit(*prepared, now);
                    replies.push(Box::new(move || drop(reply.send(Ok(registered)))));
                }
                (Staged::Leave(_, reply), Err(error)) => {
                    let error = RegistryError::Store(Arc::clone(error));
                    replies.push(Box::new(move || drop(reply.send(Err(error)))));
                }
                (Staged::Leave(name, reply), Ok(())) => {
                    self.table.leave(&name);
                    replies.push(Box::new(move || drop(reply.send(Ok(())))));
                }
            }
        }
        self.publish();
        // Last, so that who has the reply finds what it says in the snapshot.
        replies.into_iter().for_each(|reply| reply());
    }

    /// Stores what changed by itself: states and removals. What fails is tried again with the next save.
    async fn save(&mut self) {
        self.next_save = Instant::now() + STEP;
        let unstored = self.table.take_unstored();
        let mut writes = Vec::with_capacity(unstored.len() + 1);
        let mut names = Vec::with_capacity(unstored.len());
        for (name, record) in unstored {
            writes.push(record.map_or_else(|| Write::Remove(name.clone()), |r| Write::Put(Box::new(r))));
            names.push(name);
        }
        let low = self.table.snapshot().index() + INDEXES / 2 > self.reserved;
        if low {
            writes.push(Write::Index(self.reserved + INDEXES));
        }
        if writes.is_empty() {
            return;
        }
        match self.write(writes).await {
            Ok(()) if low => self.reserved += INDEXES,
            Ok(()) => {}
            Err(_) => self.table.still_unstored(names),
        }
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), Arc<StoreError>> {
        let result = self.store.write(writes).await;
        let worked = self.shared.store_works.swap(result.is_ok(), Ordering::Relaxed);
        match &result {
            Err(error) if worked => {
                tracing::error!(error = error as &dyn std::error::Error, "the store fails")
            }
            Ok(()) if !worked => tracing::info!("the store works again"),
            _ => {}
        }
        result.map_err(Arc::new)
    }

    /// Shows everybody what has changed, and has health look at it.
    fn publish(&mut self) {
        let changes = self.table.take_changes();
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            let name = &change.transition.instance().key.name;
            let state = self.table.state(name).unwrap_or(State::Unknown);
            self.health.agree(name, self.table.target(name), state, First::AtOnce);
        }
        self.shared.board.publish(self.table.snapshot().clone(), changes);
        self.gauges();
    }

    fn gauges(&self) {
        for (state, count) in self.table.counts() {
            self.shared.metrics.set_instances(state.as_str(), count);
        }
    }
}

impl Command {
    const fn name(&self) -> &Name {
        match self {
            Self::Register { accepted, .. } => &accepted.name,
            Self::Renew { name, .. } | Self::Leave { name, .. } => name,
        }
    }
}

/// The wall clock, cut to the milliseconds that go over the wire and into the store: what a client reads, and what is
/// there after a restart, is exactly what the snapshot has.
fn wall() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}

/// A new incarnation: 64 random bits, enough that no two lives of one name share one.
fn fresh() -> Incarnation {
    let random: u64 = rand::rng().random();
    // 16 hexadecimal digits are an incarnation by its definition.
    Incarnation::new(format!("{random:016x}"))
        .unwrap_or_else(|| unreachable!("hexadecimal digits are printable"))
}
