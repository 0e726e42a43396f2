//! Readiness as gates: a daemon is ready when each part that must be up has opened its gate. A gate may close again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All gates of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Closed>>>);

/// Why a gate is closed; `None`: it is open.
type Closed = Option<String>;

/// One part that must be up. Dropping it leaves it as it is.
#[derive(Clone)]
pub struct Gate {
    name: &'static str,
    all: Readiness,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// A new gate, closed until it is opened.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.gates().insert(name, Some("not started yet".into()));
        Gate { name, all: self.clone() }
    }

    /// The closed gates, each with its reason; empty when ready.
    pub fn closed(&self) -> Vec<(&'static str, String)> {
        self.gates().iter().filter_map(|(name, closed)| closed.clone().map(|why| (*name, why))).collect()
    }

    pub fn is_ready(&self) -> bool {
        self.gates().values().all(Option::is_none)
    }

    // A panic while the lock is held cannot leave the map half-written: every change is one insert.
    fn gates(&self) -> MutexGuard<'_, BTreeMap<&'static str, Closed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    pub fn open(&self) {
        self.all.gates().insert(self.name, None);
    }

    pub fn close(&self, why: impl Into<String>) {
        self.all.gates().insert(self.name, Some(why.into()));
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("closed", &self.closed()).finish()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_ready_when_every_gate_is_open() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready(), "nothing to wait for");
        let (kernel, ledger) = (readiness.gate("kernel"), readiness.gate("ledger"));
        kernel.open();
        assert_eq!(readiness.closed(), [("ledger", "not started yet".to_owned())]);
        ledger.open();
        assert!(readiness.is_ready());
        kernel.close("link lost");
        assert_eq!(readiness.closed(), [("kernel", "link lost".to_owned())]);
    }
}
