//! One call at a time for each attachment, and the word of a DEL to the ADD before it.
//!
//! The specification asks runtimes not to run two calls for one container at once, but a runtime that gave an ADD up does:
//! its DEL arrives while the ADD still waits here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use enipool_pool::ledger::AttachmentKey;
use tokio::sync::{OwnedMutexGuard, watch};

/// The calls under way, by attachment.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<AttachmentKey, Arc<Flight>>>>);

#[derive(Debug)]
struct Flight {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Counts deletions. Each call looks at those that arrive after it.
    deletions: watch::Sender<u64>,
}

/// A call's turn at its attachment; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    flights: Arc<Mutex<HashMap<AttachmentKey, Arc<Flight>>>>,
    key: AttachmentKey,
    guard: Option<OwnedMutexGuard<()>>,
    flight: Option<Arc<Flight>>,
}

/// Tells a call of deletions that came after it.
#[derive(Debug)]
pub(super) struct Deletion(watch::Receiver<u64>);

impl Deletion {
    /// Returns when a DEL of the same attachment arrives; never, if none does.
    pub(super) async fn arrives(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Flights {
    /// Waits until no other call is under way for `key`. The deletions reported are those since *now*, so also those that
    /// come while this call still waits for its turn.
    pub(super) async fn enter(&self, key: &AttachmentKey) -> (Turn, Deletion) {
        let flight = self.join(key);
        let deletion = Deletion(flight.deletions.subscribe());
        (self.take_turn(key, flight).await, deletion)
    }

    /// The same for a DEL: ADDs of `key` that wait are told first.
    pub(super) async fn enter_to_delete(&self, key: &AttachmentKey) -> Turn {
        let flight = self.join(key);
        flight.deletions.send_modify(|count| *count = count.wrapping_add(1));
        self.take_turn(key, flight).await
    }

    /// Whether a call is under way for `key`.
    pub(super) fn is_busy(&self, key: &AttachmentKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn join(&self, key: &AttachmentKey) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            flights
                .entry(key.clone())
                .or_insert_with(|| Arc::new(Flight { turn: Arc::default(), deletions: watch::Sender::new(0) })),
        )
    }

    async fn take_turn(&self, key: &AttachmentKey, flight: Arc<Flight>) -> Turn {
        let turn = Arc::clone(&flight.turn);
        // Made before the wait: a call that is dropped while it waits leaves the map as well.
        let mut entered = Turn { flights: Arc::clone(&self.0), key: key.clone(), guard: None, flight: Some(flight) };
        entered.guard = Some(turn.lock_owned().await);
        entered
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        self.flight = None;
        // Whoever else waits holds a clone, and clones are made under this lock.
        if flights.get(&self.key).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use futures::FutureExt;

    fn key() -> AttachmentKey {
        AttachmentKey::new("net", "c1", "eth0")
    }

    #[tokio::test]
    async fn calls_of_one_attachment_take_turns_and_leave_nothing_behind() {
        let flights = Flights::default();
        let (first, _) = flights.enter(&key()).await;
        assert!(flights.enter(&key()).now_or_never().is_none(), "the second waits");
        assert!(flights.enter(&AttachmentKey::new("net", "c2", "eth0")).now_or_never().is_some());
        assert!(flights.is_busy(&key()));
        drop(first);
        assert!(flights.enter(&key()).now_or_never().is_some());
        assert!(!flights.is_busy(&key()));
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_deletion_reaches_the_calls_before_it_and_not_those_after() {
        let flights = Flights::default();
        let key = key();
        let (add, mut before) = flights.enter(&key).await;
        let delete = flights.enter_to_delete(&key);
        tokio::pin!(delete);
        assert!(delete.as_mut().now_or_never().is_none());
        assert!(before.arrives().now_or_never().is_some());
        drop(add);
        drop(delete.await);
        let (_again, mut after) = flights.enter(&key).await;
        assert!(after.arrives().now_or_never().is_none(), "an ADD after the DEL is not cancelled by it");
    }
}
