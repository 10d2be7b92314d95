//! The rules, kept by a thread that repairs them, or changed once by a process that ends.

use portolan_apply::{ApplyError, DataPlane, Known, OneShot, PlanConfig, PlanError, Stats};
use portolan_model::{Mapping, MappingKey};
use portolan_netlink::Socket;

/// How the rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// By threads of this process, which repair them when others change them.
    Live,
    /// Changed when it is asked for, by a process that does not stay.
    OneShot,
}

/// The rules.
pub(super) enum Rules {
    Live { door: DataPlane, config: PlanConfig },
    OneShot { door: Box<OneShot>, config: PlanConfig, known: Option<Known> },
}

impl Rules {
    /// Has exactly these mappings.
    pub(super) fn open(kind: Plane, config: PlanConfig, mappings: Vec<Mapping>) -> Result<Self, ApplyError> {
        Ok(match kind {
            Plane::Live => Self::Live { door: DataPlane::start(config.clone(), mappings)?, config },
            Plane::OneShot => {
                let mut door = OneShot::open(config.clone())?;
                let known = door.restore(&mappings)?.known;
                Self::OneShot { door: Box::new(door), config, known }
            }
        })
    }

    /// Changes nothing yet: the kernel is as `known` says, or is looked at with the first change.
    pub(super) fn trust(
        config: PlanConfig,
        socket: Socket,
        known: Option<Known>,
    ) -> Result<Self, ApplyError> {
        let door = Box::new(OneShot::over(config.clone(), socket)?);
        Ok(Self::OneShot { door, config, known })
    }

    /// What the next process that [trusts](Rules::trust) needs.
    pub(super) const fn known(&self) -> Option<Known> {
        match self {
            Self::Live { .. } => None,
            Self::OneShot { known, .. } => *known,
        }
    }

    /// Removes and adds mappings in one transaction, all or none. `before`: all that hold until now; `concerned`: those
    /// of them that have to do with the change ([`OneShot::change_concerned`]).
    pub(super) fn change(
        &mut self,
        concerned: impl FnOnce() -> Vec<Mapping>,
        before: impl Fn() -> Vec<Mapping>,
        remove: &[MappingKey],
        add: &[Mapping],
    ) -> Result<(), ApplyError> {
        if remove.is_empty() && add.is_empty() {
            return Ok(());
        }
        let changed = match self {
            Self::Live { door, .. } => door.change(remove.to_vec(), add.to_vec()),
            Self::OneShot { door, known, .. } => {
                let concerned = concerned();
                let done = door.change_concerned(&concerned, &before, remove, add, known.take());
                done.map(|done| *known = done.known)
            }
        };
        match changed {
            // What is to be removed has never come, or is gone already: the sum is what counts.
            Err(ApplyError::Plan(PlanError::Unknown(_))) => {
                let stays = |mapping: &Mapping| !remove.contains(&mapping.key());
                let after: Vec<Mapping> =
                    before().into_iter().filter(stays).chain(add.iter().cloned()).collect();
                self.set(after)
            }
            other => other,
        }
    }

    /// Has exactly these mappings.
    pub(super) fn set(&mut self, mappings: Vec<Mapping>) -> Result<(), ApplyError> {
        match self {
            Self::Live { door, .. } => door.set(mappings),
            Self::OneShot { door, known, .. } => door.restore(&mappings).map(|done| *known = done.known),
        }
    }

    /// Follows another configuration, if it is another.
    pub(super) fn reconfigure(
        &mut self,
        new: PlanConfig,
        mappings: impl Fn() -> Vec<Mapping>,
    ) -> Result<(), ApplyError> {
        match self {
            Self::Live { config, .. } | Self::OneShot { config, .. } if *config == new => return Ok(()),
            Self::Live { door, config } => {
                door.reconfigure(new.clone())?;
                *config = new;
            }
            Self::OneShot { door, config, known }
                if *config == (PlanConfig { local: config.local.clone(), ..new.clone() }) =>
            {
                *known = door.set_local(new.local.clone(), mappings, known.take())?.known;
                *config = new;
            }
            Self::OneShot { door, config, known } => {
                let mut changed = OneShot::open(new.clone())?;
                *known = changed.restore(&mappings())?.known;
                (**door, *config) = (changed, new);
            }
        }
        Ok(())
    }

    /// What in the kernel is not as these mappings ask for, in words. It is the kernel that is asked.
    pub(super) fn check(&mut self, mappings: &[Mapping]) -> Result<Vec<String>, ApplyError> {
        match self {
            // A kernel that cannot count has the rules without.
            Self::Live { door, config } => {
                let config = PlanConfig { counting: door.stats().counting, ..config.clone() };
                OneShot::open(config)?.check(mappings)
            }
            Self::OneShot { door, .. } => door.check(mappings),
        }
    }

    /// The threads that keep them, if there are any.
    pub(super) fn live(&self) -> Option<DataPlane> {
        match self {
            Self::Live { door, .. } => Some(door.clone()),
            Self::OneShot { .. } => None,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Self::Live { door, .. } => door.stats(),
            Self::OneShot { .. } => Stats::default(),
        }
    }

    /// Deletes the table.
    #[cfg(test)]
    pub(super) fn stop(&mut self) -> Result<(), ApplyError> {
        match self {
            Self::Live { door, .. } => door.stop(),
            Self::OneShot { door, .. } => door.clear(),
        }
    }
}
