//! What the tests share: whose turn it is, processes whose output can be awaited, and a user to run them as.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(feature = "cli")]
pub(crate) mod network;
pub(crate) mod nodes;
#[cfg(feature = "cli")]
pub(crate) mod process;
#[cfg(feature = "cli")]
pub(crate) mod sessions;
#[cfg(feature = "cli")]
pub(crate) mod stranger;
#[cfg(feature = "cli")]
pub(crate) mod terminal;
#[cfg(feature = "cli")]
pub(crate) mod tree;
#[cfg(feature = "cli")]
pub(crate) mod user;
#[cfg(feature = "cli")]
pub(crate) mod worker;

static MACHINE: RwLock<()> = RwLock::new(());

/// A test's share of the machine. Tests that measure time have it for themselves, the others run side by side.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Turn {
    pub(crate) fn shared() -> Self {
        Self::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn alone() -> Self {
        Self::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
    }
}
