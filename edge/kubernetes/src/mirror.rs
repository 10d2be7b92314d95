//! A copy of the API server's objects of one kind, kept up to date by a watch.
//!
//! kube's `watcher` lists, watches, resumes, and lists again when its position has expired (410). What is kept here is
//! not its objects but the few facts that we need of each. While the API server is away the last known state stays and
//! answers; a new list replaces it in one step, so that a reader never sees half of one.

mod follow;
mod wanted;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
};

use kube::{Resource, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    follow::{Follower, follow},
    wanted::{MirrorState, ObjectKey, Wanted},
};
use crate::{ApiError, answered::Answered};

/// The copy. Clones share it.
pub(crate) struct Mirror<F> {
    what: &'static str,
    items: Arc<RwLock<HashMap<ObjectKey, Arc<F>>>>,
    state: watch::Receiver<MirrorState>,
}

impl<F> Clone for Mirror<F> {
    fn clone(&self) -> Self {
        Self { what: self.what, items: self.items.clone(), state: self.state.clone() }
    }
}

impl<F: PartialEq + Send + Sync + 'static> Mirror<F> {
    /// Watches until `stop`. `facts` reads an object; what it drops is not kept. `changed` is told the key of each
    /// object whose facts are new, other or gone.
    pub(crate) fn start<K>(
        wanted: Wanted<K>,
        facts: impl Fn(K) -> Option<F> + Send + 'static,
        changed: impl Fn(&ObjectKey) + Send + 'static,
        stop: CancellationToken,
    ) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (state, receiver) = watch::channel(MirrorState::default());
        let items = Arc::new(RwLock::new(HashMap::new()));
        let mirror = Self { what: wanted.what, items: items.clone(), state: receiver };
        let mut keeper = Keeper {
            items,
            fresh: None,
            state,
            answered: wanted.answered.clone(),
            optional: wanted.optional,
            facts,
            changed,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(wanted, &mut keeper) => {}
            }
        });
        mirror
    }
}

impl<F> Mirror<F> {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<F>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<F>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// All of them in the order of their keys.
    pub(crate) fn sorted(&self) -> BTreeMap<ObjectKey, Arc<F>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    pub(crate) fn state(&self) -> MirrorState {
        self.state.borrow().clone()
    }

    /// Waits until the copy was complete once.
    pub(crate) async fn synced(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.synced).await.is_err() {
            // The task ended, so nobody will ever be told: the caller's time limit speaks.
            std::future::pending::<()>().await;
        }
    }
}

/// The writing side.
struct Keeper<F, Facts, Changed> {
    items: Arc<RwLock<HashMap<ObjectKey, Arc<F>>>>,
    /// The list that is being read, until it is complete.
    fresh: Option<HashMap<ObjectKey, Arc<F>>>,
    state: watch::Sender<MirrorState>,
    answered: Answered,
    optional: bool,
    facts: Facts,
    changed: Changed,
}

impl<K, F, Facts, Changed> Follower<K> for Keeper<F, Facts, Changed>
where
    K: Resource + Send,
    F: PartialEq + Send + Sync,
    Facts: Fn(K) -> Option<F> + Send,
    Changed: Fn(&ObjectKey) + Send,
{
    async fn event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.fresh = Some(HashMap::new()),
            Event::InitApply(object) => {
                let key = ObjectKey::of(&object);
                if let (Some(fresh), Some(facts)) = (&mut self.fresh, (self.facts)(object)) {
                    fresh.insert(key, Arc::new(facts));
                }
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => {
                let key = ObjectKey::of(&object);
                let facts = (self.facts)(object).map(Arc::new);
                self.put(key, facts);
            }
            Event::Delete(object) => self.put(ObjectKey::of(&object), None),
        }
    }

    async fn fails(&mut self, error: &ApiError) -> bool {
        let expected = self.optional && error.is_missing();
        if expected {
            self.fresh = Some(HashMap::new());
            self.replace();
        } else {
            self.state.send_modify(|state| state.fails(error, &self.answered));
        }
        expected
    }

    fn works(&mut self) {
        self.state.send_if_modified(MirrorState::works);
    }
}

impl<F: PartialEq, Facts, Changed: Fn(&ObjectKey)> Keeper<F, Facts, Changed> {
    fn put(&self, key: ObjectKey, facts: Option<Arc<F>>) {
        let same = {
            let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
            match facts {
                Some(facts) => {
                    let same = items.get(&key).is_some_and(|old| *old == facts);
                    items.insert(key.clone(), facts);
                    same
                }
                None => items.remove(&key).is_none(),
            }
        };
        if !same {
            (self.changed)(&key);
        }
    }

    /// The list is complete: it is the state from now on.
    fn replace(&mut self) {
        let fresh = self.fresh.take().unwrap_or_default();
        let mut changed = Vec::new();
        {
            let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
            changed.extend(items.keys().filter(|key| !fresh.contains_key(key)).cloned());
            changed.extend(
                fresh.iter().filter(|(key, new)| items.get(key) != Some(new)).map(|(key, _)| key.clone()),
            );
            *items = fresh;
        }
        // First the readers' keys, then "synced", so that whoever waits for it finds everything told.
        changed.iter().for_each(&self.changed);
        self.state.send_modify(|state| {
            state.synced = true;
            state.lists += 1;
        });
    }
}
