//! The door to the data plane: cheap to clone, for any thread.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use portolan_model::{Mapping, MappingKey};
use portolan_nft::{Kernel, Nft as _};
use portolan_plan::{Counts, Plan, PlanConfig, Touched, counters};

use crate::{
    ApplyError, Stats,
    commit::Committer,
    flush::Flushes,
    ledger::Ledger,
    owner::Owner,
    queue::{Command, Request, Sender, queue},
    repair::Pace,
    stats::Shared,
    watch::Watch,
};

/// How long [`DataPlane::settle`] waits at most.
const SETTLE: Duration = Duration::from_secs(10);

/// The data plane of a network namespace.
///
/// All methods block, most of them for well under a millisecond; async callers use their runtime's thread for blocking
/// work, or [`DataPlane::submit`]. When the last clone is dropped the threads end and the table stays.
#[derive(Clone, Debug)]
pub struct DataPlane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: Sender,
    flushes: Arc<Flushes>,
    stats: Arc<Shared>,
    ledger: Arc<Ledger>,
    /// Reads counters beside the owner, who does not wait for it.
    reader: Mutex<Kernel>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A change on its way.
#[derive(Debug)]
#[must_use = "the change is on its way; wait() tells whether it was made"]
pub struct Ticket(Receiver<Result<(), ApplyError>>);

impl Ticket {
    pub(crate) const fn new(answer: Receiver<Result<(), ApplyError>>) -> Self {
        Self(answer)
    }

    /// Waits until the kernel has the change, or has refused it.
    ///
    /// # Errors
    /// Then nothing of this change was made.
    pub fn wait(self) -> Result<(), ApplyError> {
        self.0.recv().unwrap_or(Err(ApplyError::Stopped))
    }
}

impl DataPlane {
    /// Starts it in the network namespace of the calling thread with these mappings. Whatever the table is, missing,
    /// of an earlier run or broken, it is brought to what they ask for; if it is right already, nothing is written.
    ///
    /// # Errors
    /// [`ApplyError::Plan`] when the configuration or the mappings cannot be; [`ApplyError::Kernel`] when rules may
    /// not be written here; [`ApplyError::Start`] when a socket or thread cannot be had.
    pub fn start(config: PlanConfig, mappings: Vec<Mapping>) -> Result<Self, ApplyError> {
        let (sender, inbox) = queue().map_err(|error| ApplyError::Start(error.to_string()))?;
        let (stats, flushes) = (Arc::<Shared>::default(), Arc::<Flushes>::default());
        let plan = Plan::with(config, &mappings)?;
        // Sockets belong to the namespace of the thread that opens them, so they are opened here.
        let (nft, reader) = (Kernel::open()?, Mutex::new(Kernel::open()?));
        let watch =
            Watch::open(plan.table(), nft.port_id()).map_err(|error| ApplyError::Start(error.to_string()))?;
        let ledger = Arc::<Ledger>::default();
        let mut committer =
            Committer { plan, nft, stats: Arc::clone(&stats), ledger: Arc::clone(&ledger), uncounted: false };
        let difference = committer.compare_or_count_less()?;
        tracing::info!(mappings = mappings.len(), found = ?difference.found, "the packet rules are in place");
        {
            let mut stats = stats.lock();
            stats.mappings = mappings.len();
            stats.adds = mappings.len() as u64;
            stats.counting = committer.plan.config().counting;
        }
        flushes.request(&Touched::everything_and(&difference));

        let owner =
            Owner { committer, inbox, watch, flushes: Arc::clone(&flushes), repair: None, pace: Pace::new() };
        let inner = Inner { sender, flushes, stats, ledger, reader, threads: Mutex::default() };
        let this = Self(Arc::new(inner));
        this.spawn("portolan-nft", move || owner.run())?;
        let (sender, flushes, stats) =
            (this.0.sender.clone(), Arc::clone(&this.0.flushes), Arc::clone(&this.0.stats));
        this.spawn("portolan-flush", move || flushes.run_for(&sender, &stats))?;
        Ok(this)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ApplyError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| ApplyError::Start(error.to_string()))?;
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Removes and adds mappings, all of them or none, and does not wait. Waits only while the queue is full.
    /// Changes that are on their way at the same time are written together, each with an answer of its own.
    pub fn submit(&self, remove: Vec<MappingKey>, add: Vec<Mapping>) -> Ticket {
        let (reply, answer) = sync_channel(1);
        // If it has stopped, the reply's end is gone with the command, and the ticket says so.
        let _ = self.0.sender.send(Command::Change(Request { remove, add, reply }));
        Ticket(answer)
    }

    /// Removes and adds mappings, all of them or none, and waits until the kernel has them. From then on new
    /// connections go to the new place. UDP connections that went to the old one are deleted within some
    /// milliseconds more, see [`DataPlane::settle`].
    ///
    /// # Errors
    /// Then nothing of this change was made.
    pub fn change(&self, remove: Vec<MappingKey>, add: Vec<Mapping>) -> Result<(), ApplyError> {
        self.submit(remove, add).wait()
    }

    /// [`DataPlane::change`] for one more mapping.
    ///
    /// # Errors
    /// The mapping overlaps another, cannot be, or the kernel refused it.
    pub fn add(&self, mapping: Mapping) -> Result<(), ApplyError> {
        self.change(Vec::new(), vec![mapping])
    }

    /// [`DataPlane::change`] for one mapping less.
    ///
    /// # Errors
    /// There is none with this key, or the kernel refused.
    pub fn remove(&self, key: MappingKey) -> Result<(), ApplyError> {
        self.change(vec![key], Vec::new())
    }

    /// Has these mappings and no others; those that are the same stay untouched.
    ///
    /// # Errors
    /// Then the mappings are as before.
    pub fn set(&self, mappings: Vec<Mapping>) -> Result<(), ApplyError> {
        self.0.sender.ask(|reply| Command::Set { mappings, reply })?
    }

    /// The mappings that hold.
    ///
    /// # Errors
    /// [`ApplyError::Stopped`].
    pub fn mappings(&self) -> Result<Vec<Mapping>, ApplyError> {
        self.0.sender.ask(|reply| Command::Mappings { reply })
    }

    /// Follows another configuration from now on: networks, source policies, ports, also what is counted or where the
    /// rules stand. Mappings stay, and what they rewrote; one transaction, so that no packet meets half of it.
    ///
    /// # Errors
    /// The configuration cannot be, or the kernel refused; then everything is as before.
    pub fn reconfigure(&self, config: PlanConfig) -> Result<(), ApplyError> {
        self.0.sender.ask(|reply| Command::Reconfigure { config: Box::new(config), reply })?
    }

    /// What came by each mapping since it was added; empty with [`Counting::Off`](portolan_plan::Counting). What others flushed is lost since
    /// the last call of this, at most. Takes some milliseconds for 10,000 mappings, and nobody else waits for it.
    ///
    /// # Errors
    /// [`ApplyError::Stopped`], or the kernel could not be read.
    pub fn counters(&self) -> Result<Vec<(MappingKey, Counts)>, ApplyError> {
        let (config, mappings) = self.0.sender.ask(|reply| Command::Counted { reply })?;
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Plan::new(config.clone())?.table();
        let shown = counters::counts(&config, &mappings, |set| {
            match reader.elements(&table, &set.declaration(&config)) {
                // Flushed a moment ago, and not repaired yet.
                Err(error) if error.is_not_found() => Ok(Vec::new()),
                other => other,
            }
        })?;
        Ok(self.0.ledger.sum(shown))
    }

    /// Waits until the tracked UDP connections have been looked at for all changes made so far; `false` if that takes
    /// longer than ten seconds.
    ///
    /// # Errors
    /// [`ApplyError::Stopped`].
    pub fn settle(&self) -> Result<bool, ApplyError> {
        let number = self.0.sender.ask(|reply| Command::Flushes { reply })?;
        Ok(self.0.flushes.wait(number, SETTLE))
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.0.stats.lock().clone()
    }

    /// Deletes the table, and no other, and ends. Any clone's calls fail with [`ApplyError::Stopped`] from then on.
    ///
    /// # Errors
    /// The kernel would not delete it; the threads end all the same.
    pub fn stop(&self) -> Result<(), ApplyError> {
        let result = self.0.sender.ask(|reply| Command::Stop { reply })?;
        self.0.join();
        result
    }
}

impl Inner {
    fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has said so on its way.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.sender.send(Command::Leave);
        self.join();
    }
}
