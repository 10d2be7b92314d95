//! Things that are costly to make and of which only the busy need one: pipes, buffers.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Some spare ones.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    spare: Mutex<Vec<T>>,
    most: usize,
}

impl<T> Pool<T> {
    /// Keeps so many at most.
    pub(crate) const fn new(most: usize) -> Self {
        Self { spare: Mutex::new(Vec::new()), most }
    }

    /// A spare one, or a new one.
    pub(crate) fn take<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Taken<'_, T>, E> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let thing = match spare {
            Some(thing) => thing,
            None => make()?,
        };
        Ok(Taken { pool: self, thing: Some(thing) })
    }
}

/// One in use; back in the pool when dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a, T> {
    pool: &'a Pool<T>,
    thing: Option<T>,
}

impl<T> Taken<'_, T> {
    /// It is not fit for anybody else.
    pub(crate) fn discard(mut self) {
        self.thing = None;
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.thing.as_ref().expect("it is there until it is dropped or discarded")
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("it is there until it is dropped or discarded")
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take() else { return };
        let mut spare = self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.pool.most {
            spare.push(thing);
        }
    }
}
