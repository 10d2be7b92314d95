//! The thread that owns the table: it alone writes it.
//!
//! Events that gather while it works become one transaction, up to what keeps nobody waiting ([`super::stride`]). What
//! they mean for the kernel is asked of [`portolan_services`]; the owner knows only elements.

use std::{
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use portolan_model::ObjectName;
use portolan_nft::{Nft, Transaction};
use portolan_services::{Changes, Services, ServicesConfig};

use super::{
    drain::Drain,
    flows::Suspects,
    level::Levelled,
    queue::{Command, Request},
    quiet::{Quietly, level_quietly, run_quietly},
    stats::{Live, Shared},
    stride::Stride,
};
use crate::{
    ApplyError,
    commit::is_drift,
    flush::Flushes,
    queue::{Inbox, Reply},
    repair::Pace,
    services::chunks::{Written, elements_of},
    watch::{Foreign, Watch},
};

/// So many commands are taken at once at most.
const TOGETHER: usize = 256;
/// A comparison that failed is made again after so long.
const RETRY: Duration = Duration::from_millis(500);
/// The wait doubles up to this while it goes on failing.
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// The owner of the table.
#[derive(Debug)]
pub(crate) struct Owner<N> {
    pub(crate) services: Services,
    pub(crate) nft: N,
    pub(crate) inbox: Inbox<Command>,
    pub(crate) watch: Watch,
    pub(crate) shared: Arc<Shared>,
    pub(crate) flushes: Arc<Flushes<Suspects>>,
    pub(crate) stride: Stride,
    pub(crate) drain: Drain,
    pub(crate) compare: Option<Compare>,
    pub(crate) pace: Pace,
}

/// A comparison of the whole table that is due.
#[derive(Debug)]
pub(crate) struct Compare {
    why: Why,
    since: Instant,
    due: Instant,
    /// How often it was tried.
    tried: u32,
}

impl Compare {
    /// At once, since others may have changed something that was not heard of.
    pub(crate) fn missed() -> Self {
        let now = Instant::now();
        Self { why: Why::Foreign(Foreign::Unknown), since: now, due: now, tried: 0 }
    }
}

#[derive(Clone, Debug)]
enum Why {
    /// Somebody else changed the table, or may have.
    Foreign(Foreign),
    /// The kernel refused something of ours.
    Refused,
    /// A change did not fit what was there: others changed it a moment ago, or ours went wrong.
    Drift,
}

impl<N: Nft> Owner<N> {
    /// Works until it is told to stop or leave.
    pub(crate) fn run(mut self) {
        loop {
            self.inbox.wait_beside(self.watch.as_fd(), self.timeout());
            self.listen();
            self.compare_if_due();
            self.drain_if_due();
            let commands = self.inbox.take(TOGETHER);
            if !self.obey(commands) {
                self.flushes.stop();
                return;
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let compare = self.compare.as_ref().map(|compare| compare.due);
        let due = compare.into_iter().chain(self.drain.due()).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn listen(&mut self) {
        let who = match self.watch.heard() {
            Ok(None) => return,
            Ok(Some(who)) => who,
            Err(error) => {
                tracing::warn!(%error, "cannot hear of changes of the rules of Services");
                std::thread::sleep(Duration::from_millis(10));
                Foreign::Unknown
            }
        };
        let now = Instant::now();
        let (since, tried) = self.compare.as_ref().map_or((now, 0), |due| (due.since, due.tried));
        let due = now + self.pace.wait(now);
        self.compare = Some(Compare { why: Why::Foreign(who), since, due, tried });
    }

    fn compare_if_due(&mut self) {
        let now = Instant::now();
        let Some(compare) = self.compare.take_if(|compare| compare.due <= now) else { return };
        match self.level() {
            Ok(levelled) => self.repaired(&compare, &levelled),
            Err(error) => {
                tracing::error!(%error, "the rules of Services could not be brought to what they should be; trying again");
                self.failed(&error.to_string());
                self.pace.repaired(now);
                let wait = RETRY.saturating_mul(1 << compare.tried.min(10)).min(RETRY_AT_MOST);
                let due = Instant::now() + wait.max(self.pace.wait(now));
                self.compare = Some(Compare { due, tried: compare.tried + 1, ..compare });
            }
        }
    }

    fn repaired(&mut self, compare: &Compare, levelled: &Levelled) {
        if levelled.found.is_empty() {
            tracing::debug!(why = ?compare.why, "the rules of Services are as they should be");
            return;
        }
        let took = compare.since.elapsed();
        self.pace.repaired(Instant::now());
        {
            let mut stats = self.shared.lock();
            stats.repairs += 1;
            stats.last_repair = took;
        }
        let found = levelled.found.join("; ");
        match &compare.why {
            Why::Foreign(Foreign::Process { name, id }) => tracing::warn!(
                program = %name, process = id, %found, ?took,
                "another program changed the rules of Services; they were repaired"
            ),
            Why::Foreign(Foreign::Unknown) => tracing::warn!(
                %found, ?took,
                "the rules of Services were changed while too much happened to hear by whom; they were repaired"
            ),
            Why::Refused => tracing::warn!(%found, ?took, "what the kernel had refused is written"),
            Why::Drift => tracing::warn!(
                %found, ?took,
                "a change did not fit the rules of Services in the kernel, which were not as they were left; they were repaired"
            ),
        }
        // Meanwhile packets went elsewhere, and connection tracking remembers.
        self.flushes.request(&Suspects::everything());
    }

    /// Compares all of the table with what it should be and writes the difference.
    pub(crate) fn level(&mut self) -> Result<Levelled, ApplyError> {
        let Quietly { result, missed } =
            level_quietly(&mut self.nft, &self.watch, &self.services, &mut self.stride, &mut |_| {});
        self.missed(missed);
        let levelled = result?;
        self.shared.wrote(&levelled.written);
        self.refusals(&levelled.written);
        Ok(levelled)
    }

    /// Others may have changed something while we did not listen.
    fn missed(&mut self, missed: bool) {
        if missed && self.compare.is_none() {
            let now = Instant::now();
            self.compare = Some(Compare { due: now + self.pace.wait(now), ..Compare::missed() });
        }
    }

    /// What the kernel refused of a comparison is tried again later; everything else is in place.
    pub(crate) fn refusals(&mut self, written: &Written) {
        if written.refusals == 0 {
            self.shared.lock().last_error = None;
            return;
        }
        let first = written.refused.join("; ");
        tracing::error!(elements = written.refusals, %first, "the kernel refused a part of the rules of Services");
        self.shared.lock().last_error = Some(format!("{} elements were refused: {first}", written.refusals));
        self.schedule(RETRY_AT_MOST);
    }

    fn schedule(&mut self, wait: Duration) {
        let now = Instant::now();
        if self.compare.is_none() {
            self.compare = Some(Compare { why: Why::Refused, since: now, due: now + wait, tried: 0 });
        }
    }

    fn failed(&self, why: &str) {
        let mut stats = self.shared.lock();
        stats.failed_repairs += 1;
        stats.last_error = Some(why.to_owned());
    }

    /// Does what it is told, changes that follow each other together. `false` to end.
    fn obey(&mut self, commands: Vec<Command>) -> bool {
        let mut changes = Vec::new();
        for command in commands {
            if let Command::Change(request) = command {
                changes.push(request);
                continue;
            }
            self.change(std::mem::take(&mut changes));
            match command {
                Command::Change(_) => {}
                Command::Replace { services, slices, reply } => {
                    answer(&reply, self.replace(services, slices));
                }
                Command::Reconfigure { config, reply } => answer(&reply, self.reconfigure(*config)),
                Command::Ask(question) => (question.0)(&self.services),
                Command::Judge { flows, touched, local, reply } => {
                    let services = &self.services;
                    let stale = |flow| services.is_stale(flow, &touched, |address| local.contains(&address));
                    answer(&reply, flows.iter().map(stale).collect());
                }
                Command::Flushes { reply } => answer(&reply, self.flushes.requested()),
                Command::Stop { reply } => {
                    answer(&reply, self.delete_table());
                    return false;
                }
                Command::Leave => return false,
            }
        }
        self.change(changes);
        true
    }

    /// Tells the Services of all events and the kernel of what they change, in as few transactions as keep nobody
    /// waiting. Whoever asked is answered when the last of their events is in the kernel.
    fn change(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for Request { events, reply } in requests {
            let mut failed = None;
            for event in events {
                batch.events += 1;
                batch.changes.append(event.tell(&mut self.services));
                if self.services.late() >= self.stride.elements() {
                    batch.changes.append(self.services.catch_up());
                }
                if batch.changes.len() >= self.stride.elements() {
                    failed = self.write(&mut batch).err().or(failed);
                }
            }
            batch.replies.push((reply, failed));
        }
        let _ = self.write(&mut batch);
    }

    /// Writes what has gathered, and answers those whose last event is in it.
    fn write(&mut self, batch: &mut Batch) -> Result<(), ApplyError> {
        let start = Instant::now();
        let mut changes = std::mem::take(&mut batch.changes);
        changes.append(self.services.catch_up());
        let names = changes.services().to_vec();
        let result = self.commit(changes);
        if result.is_ok() {
            self.live(names);
        }
        self.shared.done(std::mem::take(&mut batch.events));
        self.synced(start);
        batch.answer(&result);
        result
    }

    fn commit(&mut self, changes: Changes) -> Result<(), ApplyError> {
        self.drain.follow(&changes, Instant::now());
        let touched = Suspects::from(changes.touched().clone());
        let config = self.services.config();
        let [mut first, second] = changes.transactions(config);
        self.drain.forget(config, &mut first);
        let result = self.transact(&first).and_then(|()| self.transact(&second));
        let result = match result {
            Err(error) if is_drift(&error) => {
                tracing::debug!(%error, "the table is not as it was left; comparing all of it");
                let since = Instant::now();
                // Who it was may have been heard already.
                let why = self.watch.heard().ok().flatten().map_or(Why::Drift, Why::Foreign);
                self.level().map(|levelled| {
                    self.repaired(&Compare { why, since, due: since, tried: 0 }, &levelled);
                })
            }
            other => other.map_err(ApplyError::from),
        };
        if let Err(error) = &result {
            tracing::error!(%error, "a change of Services was refused; comparing everything soon");
            self.shared.lock().refused += 1;
            self.failed(&error.to_string());
            self.schedule(RETRY);
        }
        self.shared.lock().draining = self.drain.len();
        self.flushes.request(&touched);
        result
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<(), portolan_nft::Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        let elements = elements_of(transaction);
        let start = Instant::now();
        let Quietly { result, missed } = run_quietly(&mut self.nft, &self.watch, transaction, elements);
        let longest = start.elapsed();
        self.missed(missed);
        if result.is_ok() {
            self.stride.measured(elements, longest);
        }
        self.shared.wrote(&Written {
            transactions: 1,
            elements: elements as u64,
            longest,
            ..Written::default()
        });
        result
    }

    fn drain_if_due(&mut self) {
        let now = Instant::now();
        if self.drain.due().is_none_or(|due| due > now) {
            return;
        }
        let mut transaction = Transaction::new(self.services.table());
        let silent = self.drain.advance(self.services.config(), now, &mut transaction);
        if let Err(error) = self.transact(&transaction) {
            tracing::warn!(%error, "connections to endpoints that are gone could not be reset");
            if is_drift(&error) {
                self.schedule(Duration::ZERO);
            }
        }
        self.flushes.request(&Suspects { silent, ..Suspects::default() });
        self.shared.lock().draining = self.drain.len();
    }

    fn replace(
        &mut self,
        services: Vec<portolan_model::Service>,
        slices: Vec<portolan_model::EndpointSlice>,
    ) -> Result<(), ApplyError> {
        let start = Instant::now();
        let changes = self.services.replace(services, slices);
        let names = changes.services().to_vec();
        if changes.len() <= self.stride.elements() {
            self.commit(changes)?;
        } else {
            // Too much for one transaction: found by comparing, and written in pieces.
            self.drain.follow(&changes, Instant::now());
            if let Err(error) = self.level() {
                self.failed(&error.to_string());
                self.schedule(RETRY);
                return Err(error);
            }
            self.flushes.request(&Suspects::everything());
        }
        self.live(names);
        self.synced(start);
        Ok(())
    }

    fn reconfigure(&mut self, config: ServicesConfig) -> Result<(), ApplyError> {
        let before = self.services.config().clone();
        if config.table != before.table {
            let why = "the table's name cannot be changed while Services are served".to_owned();
            return Err(portolan_plan::PlanError::Config(why).into());
        }
        if config == before {
            return Ok(());
        }
        self.services.reconfigure(config)?;
        let start = Instant::now();
        let levelled = match self.level() {
            Ok(levelled) => levelled,
            Err(error) => {
                self.services.reconfigure(before)?;
                self.schedule(Duration::ZERO);
                return Err(error);
            }
        };
        self.synced(start);
        if !levelled.found.is_empty() {
            tracing::info!(changed = ?levelled.found, "the rules of Services follow another configuration");
            self.flushes.request(&Suspects::everything());
        }
        Ok(())
    }

    /// These Services are in the kernel as they are known.
    pub(crate) fn live(&self, names: impl IntoIterator<Item = ObjectName>) {
        let since = SystemTime::now();
        let mut live = self.shared.live();
        for name in names {
            match self.services.service(&name) {
                Some(service) => {
                    let now = Live { generation: service.generation, since };
                    match live.get_mut(&name) {
                        Some(live) => *live = now,
                        None => drop(live.insert(self.services.shared_name(&name), now)),
                    }
                }
                None => drop(live.remove(&name)),
            }
        }
    }

    /// All of them are.
    pub(crate) fn all_live(&self) {
        let since = SystemTime::now();
        let all = self.services.names().zip(self.services.services());
        let all = all.map(|(name, service)| (name, Live { generation: service.generation, since }));
        *self.shared.live() = all.collect();
    }

    pub(crate) fn synced(&self, start: Instant) {
        // As many as are known: asking the Services would count them one by one.
        let services = self.shared.live().len();
        let mut stats = self.shared.lock();
        stats.syncs += 1;
        stats.last_sync = start.elapsed();
        stats.last_synced = Some(SystemTime::now());
        stats.services = services;
    }

    fn delete_table(&mut self) -> Result<(), ApplyError> {
        let mut transaction = Transaction::new(self.services.table());
        transaction.destroy_table();
        Ok(self.nft.run(&transaction)?)
    }
}

/// What whoever asked is told.
type Outcome = Result<(), ApplyError>;

/// Changes that are written together, and who waits for them.
#[derive(Default)]
struct Batch {
    changes: Changes,
    events: usize,
    /// With how an earlier part of the request failed.
    replies: Vec<(Reply<Outcome>, Option<ApplyError>)>,
}

impl Batch {
    /// Answers those whose events are all written.
    fn answer(&mut self, result: &Result<(), ApplyError>) {
        for (reply, earlier) in self.replies.drain(..) {
            answer(&reply, earlier.map_or_else(|| result.clone(), Err));
        }
    }
}

/// Whoever asked may have gone away.
fn answer<T>(reply: &Reply<T>, value: T) {
    let _ = reply.try_send(value);
}
