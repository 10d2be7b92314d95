//! The door to the Services of a network namespace: cheap to clone, for any thread.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use portolan_model::{EndpointSlice, ObjectName, Service};
use portolan_nft::{Family, Kernel, Nft as _, Table, Transaction};
use portolan_services::{Gathered, Services, ServicesConfig};

use super::{
    Live, ServiceEvent, ServiceStats,
    counters::{self, ServiceCounts},
    drain::Drain,
    flows::{self, Suspects},
    level::Levelled,
    owner::{Compare, Owner},
    queue::{Command, Question, Request},
    quiet::{Quietly, level_quietly},
    stats::Shared,
    stride::Stride,
};
use crate::{
    ApplyError, Ticket,
    flush::Flushes,
    queue::{Sender, queue},
    repair::Pace,
    watch::Watch,
};

/// How long [`ServicePlane::settle`] waits at most.
const SETTLE: Duration = Duration::from_secs(10);

/// The Services of a network namespace, in its kernel.
///
/// All methods but [`ServicePlane::start`] block for milliseconds at most, unless many thousand events are on their way;
/// async callers use their runtime's thread for blocking work. When the last clone is dropped the threads end and the
/// table stays: packets go on as after a crash, and the next start takes over.
#[derive(Clone, Debug)]
pub struct ServicePlane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: Sender<Command>,
    flushes: Arc<Flushes<Suspects>>,
    shared: Arc<Shared>,
    /// Reads counters beside the owner, who does not wait for it.
    reader: Mutex<Kernel>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ServicePlane {
    /// Starts it in the network namespace of the calling thread with these Services and slices: call it when both are
    /// known, since whatever else is in the table goes. Whatever the table is, missing, of an earlier run, of an
    /// interrupted one or changed by others, it is brought to what they ask for; if it is right already, nothing is
    /// written. Clients that have an affinity keep it.
    ///
    /// # Errors
    /// [`ApplyError::Services`] when the configuration cannot be, [`ApplyError::Kernel`] when rules may not be written
    /// here, [`ApplyError::Start`] when a socket or thread cannot be had.
    pub fn start(
        config: ServicesConfig,
        services: Vec<Service>,
        slices: Vec<EndpointSlice>,
    ) -> Result<Self, ApplyError> {
        let mut gathered = Gathered::default();
        slices.into_iter().for_each(|slice| gathered.set_slice(slice));
        services.into_iter().for_each(|service| gathered.set_service(service));
        Self::start_with(config, gathered)
    }

    /// The same with what has been gathered.
    ///
    /// # Errors
    /// As for [`ServicePlane::start`].
    pub fn start_with(config: ServicesConfig, gathered: Gathered) -> Result<Self, ApplyError> {
        let begun = Instant::now();
        let (sender, inbox) = queue().map_err(|error| ApplyError::Start(error.to_string()))?;
        let (shared, flushes) = (Arc::<Shared>::default(), Arc::<Flushes<Suspects>>::default());
        let services = gathered.into_services(config)?;
        // Sockets belong to the namespace of the thread that opens them, so they are opened here.
        let (mut nft, reader) = (Kernel::open()?, Mutex::new(Kernel::open()?));
        let watch = Watch::open(services.table(), nft.port_id())
            .map_err(|error| ApplyError::Start(error.to_string()))?;
        let mut stride = Stride::default();
        let Quietly { result, missed } =
            level_quietly(&mut nft, &watch, &services, &mut stride, &mut failpoint);
        let levelled = result?;
        let drain = Drain::default();
        let owner = Owner {
            services,
            nft,
            inbox,
            watch,
            shared: Arc::clone(&shared),
            flushes: Arc::clone(&flushes),
            stride,
            drain,
            compare: missed.then(Compare::missed),
            pace: Pace::new(),
        };
        let inner = Inner { sender, flushes, shared, reader, threads: Mutex::default() };
        let this = Self(Arc::new(inner));
        this.started(owner, &levelled, begun)?;
        Ok(this)
    }

    fn started(
        &self,
        mut owner: Owner<Kernel>,
        levelled: &Levelled,
        begun: Instant,
    ) -> Result<(), ApplyError> {
        let shared = Arc::clone(&self.0.shared);
        shared.wrote(&levelled.written);
        owner.refusals(&levelled.written);
        owner.all_live();
        owner.synced(begun);
        shared.lock().start = begun.elapsed();
        tracing::info!(
            services = owner.services.len(), found = ?levelled.found, elements = levelled.written.elements,
            transactions = levelled.written.transactions, longest = ?levelled.written.longest,
            took = ?begun.elapsed(), "the rules of Services are in place"
        );
        // A start after a crash does not know what changed meanwhile: all UDP flows are looked at, and those that go
        // where they would go now are left alone.
        self.0.flushes.request(&Suspects::everything());
        self.spawn("portolan-svc", move || owner.run())?;
        let (sender, flushes) = (self.0.sender.clone(), Arc::clone(&self.0.flushes));
        self.spawn("portolan-flows", move || flows::run(&flushes, &sender, &shared))
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ApplyError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| ApplyError::Start(error.to_string()))?;
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Tells what happened to Services and slices, in order, and does not wait; waits only while the queue is full.
    /// What is on its way at the same time is written together.
    pub fn submit(&self, events: Vec<ServiceEvent>) -> Ticket {
        let (reply, answer) = sync_channel(1);
        let count = events.len();
        self.0.shared.given(count);
        // If it has stopped, the reply's end is gone with the command, and the ticket says so.
        if self.0.sender.send(Command::Change(Request { events, reply })).is_err() {
            self.0.shared.done(count);
        }
        Ticket::new(answer)
    }

    /// [`ServicePlane::submit`], and waits until the kernel has it.
    ///
    /// # Errors
    /// The kernel refused it. It is known all the same, and tried again.
    pub fn change(&self, events: Vec<ServiceEvent>) -> Result<(), ApplyError> {
        self.submit(events).wait()
    }

    /// Has these Services and slices and no others, as after everything was listed anew; what is the same is left
    /// alone.
    ///
    /// # Errors
    /// As for [`ServicePlane::change`].
    pub fn replace(&self, services: Vec<Service>, slices: Vec<EndpointSlice>) -> Result<(), ApplyError> {
        self.0.sender.ask(|reply| Command::Replace { services, slices, reply })?
    }

    /// Follows another configuration from now on.
    ///
    /// # Errors
    /// The configuration cannot be, or the kernel refused; then everything is as before.
    pub fn reconfigure(&self, config: ServicesConfig) -> Result<(), ApplyError> {
        self.0.sender.ask(|reply| Command::Reconfigure { config: Box::new(config), reply })?
    }

    /// Asks the Services as they are known now, between two changes: keep it short.
    ///
    /// # Errors
    /// [`ApplyError::Stopped`].
    pub fn inspect<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Services) -> T + Send + 'static,
    ) -> Result<T, ApplyError> {
        self.0.sender.ask(|reply| {
            Command::Ask(Question(Box::new(move |services| {
                let _ = reply.try_send(question(services));
            })))
        })
    }

    /// Since when this Service is in the kernel, and in which generation; `None` while it is not.
    pub fn live(&self, name: &ObjectName) -> Option<Live> {
        self.0.shared.live().get(name).copied()
    }

    /// The same for all of them.
    pub fn all_live(&self) -> Vec<(ObjectName, Live)> {
        self.0.shared.live().iter().map(|(name, live)| ((**name).clone(), *live)).collect()
    }

    /// What came by each frontend and endpoint; empty with [`Counting::Off`](portolan_plan::Counting). What others
    /// flushed is counted from 0 again. Nobody waits for it.
    ///
    /// # Errors
    /// [`ApplyError::Stopped`], or the kernel could not be read.
    pub fn counters(&self) -> Result<ServiceCounts, ApplyError> {
        let (config, table) = self.inspect(|services| (services.config().clone(), services.table()))?;
        let read = {
            let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
            counters::read(&mut *reader, &config, &table)?
        };
        self.inspect(move |services| counters::name(services, read))
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
    pub fn stats(&self) -> ServiceStats {
        self.0.shared.stats()
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

    /// Ends and leaves the table as it is, when everything given so far is in it. Packets go on as they do.
    pub fn leave(&self) {
        let _ = self.0.sender.send(Command::Leave);
        self.0.join();
    }

    /// Deletes the table of this name in the network namespace of the calling thread, whoever made it; fine if there is
    /// none.
    ///
    /// # Errors
    /// Rules may not be written here.
    pub fn remove_table(name: &str) -> Result<(), ApplyError> {
        let mut transaction = Transaction::new(Table::new(Family::Inet, name));
        transaction.destroy_table();
        Ok(Kernel::open()?.run(&transaction)?)
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

/// For tests: the process ends before its transaction of this number at the start as by `kill -9`.
fn failpoint(number: u64) {
    #[cfg(debug_assertions)]
    if std::env::var("PORTOLAN_TEST_KILL_AT").is_ok_and(|step| step == format!("services.start.{number}")) {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = number;
}
