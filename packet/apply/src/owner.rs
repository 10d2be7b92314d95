//! The thread that owns the table: it alone writes it.

use std::{
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use portolan_model::{Mapping, MappingKey};
use portolan_nft::{Nft, Transaction};
use portolan_plan::{PlanConfig, Touched};

use crate::{
    ApplyError,
    commit::Committer,
    flush::Flushes,
    queue::{Command, Inbox, Reply, Request},
    repair::Pace,
    watch::{Foreign, Watch},
};

/// So many changes at most become one transaction.
const TOGETHER: usize = 256;
/// A repair that failed is tried again after so long.
const RETRY: Duration = Duration::from_millis(500);

/// The owner of the table.
#[derive(Debug)]
pub(crate) struct Owner<N> {
    pub(crate) committer: Committer<N>,
    pub(crate) inbox: Inbox,
    pub(crate) watch: Watch,
    pub(crate) flushes: Arc<Flushes>,
    pub(crate) repair: Option<Repair>,
    pub(crate) pace: Pace,
}

/// A repair that is due.
#[derive(Debug)]
pub(crate) struct Repair {
    who: Foreign,
    heard: Instant,
    due: Instant,
}

impl<N: Nft> Owner<N> {
    /// Works until it is told to stop or leave.
    pub(crate) fn run(mut self) {
        loop {
            let timeout =
                self.repair.as_ref().map(|repair| repair.due.saturating_duration_since(Instant::now()));
            self.inbox.wait_beside(self.watch.as_fd(), timeout);
            self.listen();
            self.repair_if_due();
            let commands = self.inbox.take(TOGETHER);
            if !self.obey(commands) {
                self.flushes.stop();
                return;
            }
        }
    }

    fn listen(&mut self) {
        let who = match self.watch.heard() {
            Ok(None) => return,
            Ok(Some(who)) => who,
            Err(error) => {
                tracing::warn!(%error, "cannot hear of changes of the packet rules");
                std::thread::sleep(Duration::from_millis(10));
                Foreign::Unknown
            }
        };
        let now = Instant::now();
        let heard = self.repair.as_ref().map_or(now, |repair| repair.heard);
        self.repair = Some(Repair { who, heard, due: now + self.pace.wait(now) });
    }

    fn repair_if_due(&mut self) {
        let now = Instant::now();
        let Some(repair) = self.repair.take_if(|repair| repair.due <= now) else { return };
        match self.committer.compare() {
            Ok(difference) if difference.is_empty() => {
                tracing::debug!(who = ?repair.who, "our packet rules were touched and are as they should be");
            }
            Ok(difference) => {
                let took = repair.heard.elapsed();
                self.pace.repaired(now);
                {
                    let mut stats = self.committer.stats.lock();
                    stats.repairs += 1;
                    stats.last_repair = took;
                }
                let found = difference.found.join("; ");
                match &repair.who {
                    Foreign::Process { name, id } => tracing::warn!(
                        program = %name, process = id, %found, ?took,
                        "another program changed our packet rules; they were repaired"
                    ),
                    Foreign::Unknown => tracing::warn!(
                        %found, ?took,
                        "our packet rules were changed while too much happened to hear by whom; they were repaired"
                    ),
                }
                // Meanwhile packets went elsewhere, and connection tracking remembers.
                self.flushes.request(&Touched::everything_and(&difference));
            }
            Err(error) => {
                self.pace.repaired(now);
                self.committer.stats.lock().failed_repairs += 1;
                tracing::error!(%error, "our packet rules were changed and could not be repaired; trying again");
                let due = Instant::now() + RETRY.max(self.pace.wait(now));
                self.repair = Some(Repair { due, ..repair });
            }
        }
    }

    /// Does what it is told, changes that follow each other in one transaction. `false` to end.
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
                Command::Set { mappings, reply } => self.set(mappings, reply),
                Command::Mappings { reply } => {
                    answer(&reply, self.committer.plan.mappings().cloned().collect())
                }
                Command::Judge { flows, touched, local, reply } => {
                    let plan = &self.committer.plan;
                    let stale = |flow| plan.is_stale(flow, &touched, |address| local.contains(&address));
                    answer(&reply, flows.iter().map(stale).collect());
                }
                Command::Reconfigure { config, reply } => answer(&reply, self.reconfigure(*config)),
                Command::Counted { reply } => {
                    let plan = &self.committer.plan;
                    answer(&reply, (plan.config().clone(), plan.mappings().cloned().collect()));
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

    fn change(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let mut touched = Touched::default();
        let changes = requests.iter().map(|request| (request.remove.as_slice(), request.add.as_slice()));
        let results = self.committer.commit(changes, &mut touched);
        self.flushes.request(&touched);
        for (request, result) in requests.iter().zip(results) {
            answer(&request.reply, result);
        }
    }

    fn reconfigure(&mut self, config: PlanConfig) -> Result<(), ApplyError> {
        let difference = self.committer.reconfigure(config)?;
        self.committer.stats.lock().counting = self.committer.plan.config().counting;
        if !difference.is_empty() {
            tracing::info!(changed = ?difference.found, "the packet rules follow another configuration");
            self.flushes.request(&Touched::everything());
        }
        Ok(())
    }

    /// Removes what is not wanted, adds what is new, leaves alone what is the same.
    fn set(&mut self, wanted: Vec<Mapping>, reply: Reply<Result<(), ApplyError>>) {
        let plan = &self.committer.plan;
        let same = |mapping: &Mapping| plan.get(&mapping.key()) == Some(mapping);
        let keep: std::collections::HashSet<MappingKey> =
            wanted.iter().filter(|mapping| same(mapping)).map(Mapping::key).collect();
        let remove = plan.mappings().map(Mapping::key).filter(|key| !keep.contains(key)).collect();
        let add = wanted.into_iter().filter(|mapping| !keep.contains(&mapping.key())).collect();
        self.change(vec![Request { remove, add, reply }]);
    }

    fn delete_table(&mut self) -> Result<(), ApplyError> {
        let mut transaction = Transaction::new(self.committer.plan.table());
        transaction.destroy_table();
        Ok(self.committer.nft.run(&transaction)?)
    }
}

/// Whoever asked may have gone away.
fn answer<T>(reply: &Reply<T>, value: T) {
    let _ = reply.try_send(value);
}
