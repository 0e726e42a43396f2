//! One model for many callers, on a clock: the only place where the model meets real time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enipool_pool::Timestamp;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::model::{Event, Model};

/// Events that a slow subscriber may lag behind; one that falls further behind is told so and reads the truth instead.
const EVENT_BACKLOG: usize = 4096;

/// Whose clock the model follows.
#[derive(Debug)]
enum Clock {
    /// Only [`SharedModel::advance`] moves it.
    Manual,
    /// The runtime's (real time, or virtual where a test pauses it), plus what was skipped on demand.
    Running { origin: Instant, start: Timestamp, skipped_ms: AtomicU64 },
}

#[derive(Debug)]
struct Inner {
    model: Mutex<Model>,
    clock: Clock,
    changed: Notify,
    events: broadcast::Sender<Event>,
}

/// A handle on the model; clones share it.
#[derive(Debug, Clone)]
pub struct SharedModel(Arc<Inner>);

impl SharedModel {
    /// A model whose clock stands still until it is moved.
    pub fn manual(model: Model) -> Self {
        Self::with_clock(model, Clock::Manual)
    }

    /// A model that follows the runtime's clock from now on. Must be called inside a tokio runtime.
    /// [`SharedModel::drive`] makes things happen also while nobody calls.
    pub fn running(model: Model) -> Self {
        let start = model.now();
        Self::with_clock(model, Clock::Running { origin: Instant::now(), start, skipped_ms: AtomicU64::new(0) })
    }

    fn with_clock(model: Model, clock: Clock) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        Self(Arc::new(Inner { model: Mutex::new(model), clock, changed: Notify::new(), events }))
    }

    /// Works on the model as of now. Not to be held over anything slow: all calls wait for it.
    pub fn with<R>(&self, work: impl FnOnce(&mut Model) -> R) -> R {
        let mut model = self.0.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = self.clock_now() {
            model.advance(now);
        }
        let due_before = model.next_due();
        let result = work(&mut model);
        for event in model.take_events() {
            // No subscriber is no error.
            let _ = self.0.events.send(event);
        }
        if model.next_due() != due_before {
            self.0.changed.notify_one();
        }
        result
    }

    /// Everything that becomes effective from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Lets `by` pass at once.
    pub fn advance(&self, by: Duration) {
        match &self.0.clock {
            Clock::Manual => self.with(|model| {
                let to = model.now().plus(by);
                model.advance(to);
            }),
            Clock::Running { skipped_ms, .. } => {
                skipped_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                self.with(|_| ());
                self.0.changed.notify_one();
            }
        }
    }

    /// Waits as long as the model says that an answer takes. A clock that stands still waits for nothing.
    pub async fn wait(&self, latency: Duration) {
        if matches!(self.0.clock, Clock::Running { .. }) && !latency.is_zero() {
            tokio::time::sleep(latency).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    /// Makes what is due happen in time, also when nobody calls. Runs until dropped.
    pub async fn drive(&self) {
        loop {
            let next = self.with(|model| model.next_due());
            match next.and_then(|at| self.instant_of(at)) {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    fn clock_now(&self) -> Option<Timestamp> {
        match &self.0.clock {
            Clock::Manual => None,
            Clock::Running { origin, start, skipped_ms } => {
                let skipped = Duration::from_millis(skipped_ms.load(Ordering::Relaxed));
                Some(start.plus(origin.elapsed()).plus(skipped))
            }
        }
    }

    fn instant_of(&self, at: Timestamp) -> Option<Instant> {
        let now = self.clock_now()?;
        // A millisecond more: the model counts whole ones.
        Some(Instant::now() + at.since(now) + Duration::from_millis(1))
    }
}
