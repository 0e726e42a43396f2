//! The end of a process: one token that everybody watches, one tracker of what must finish first.
//!
//! A task that must not end, and does, ends the process: half a daemon is worse than one that is started anew.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handle on the end of the process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
    /// The first reason that was not a person's or Kubernetes's wish.
    failure: Arc<Mutex<Option<String>>>,
}

/// Why the process did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A task that has to run for as long as the process ended.
    #[error("{0}")]
    Task(String),
    #[error("some tasks did not end within {0:?}")]
    Grace(Duration),
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end on SIGTERM and SIGINT.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        self.tracker.spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = shutdown.token.cancelled() => return,
            };
            tracing::info!(signal = name, "shutting down");
            shutdown.token.cancel();
        });
        Ok(())
    }

    /// Cancelled when the process should end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Asks for the end because something broke; [`finish`](Self::finish) then fails with the first such reason.
    pub fn fail(&self, why: impl Into<String>) {
        let why = why.into();
        tracing::error!(error = %why, "cannot go on");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.token.cancel();
    }

    /// Runs a task that [`finish`](Self::finish) waits for. It should watch the token.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs a task that has to go on until the token is cancelled: if it ends earlier, or panics, so does the process.
    pub fn spawn_vital<E: std::fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let shutdown = self.clone();
        let task = self.tracker.spawn(task);
        self.tracker.spawn(async move {
            let outcome = task.await;
            if shutdown.token.is_cancelled() {
                return;
            }
            match outcome {
                Ok(Ok(())) => shutdown.fail(format!("{name} ended")),
                Ok(Err(error)) => shutdown.fail(format!("{name}: {error}")),
                Err(panic) => shutdown.fail(format!("{name}: {panic}")),
            }
        });
    }

    /// Waits for the end to be asked for, then for all tasks, at most `grace`.
    pub async fn finish(&self, grace: Duration) -> Result<(), Failure> {
        self.token.cancelled().await;
        self.tracker.close();
        let ended = tokio::time::timeout(grace, self.tracker.wait()).await;
        if let Some(why) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Failure::Task(why));
        }
        ended.map_err(|_| Failure::Grace(grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_end_waits_for_what_is_under_way() {
        let shutdown = Shutdown::new();
        let (done, token) = (Arc::new(Mutex::new(false)), shutdown.token());
        let written = done.clone();
        shutdown.spawn(async move {
            token.cancelled().await;
            *written.lock().unwrap() = true;
        });
        shutdown.request();
        shutdown.finish(GRACE).await.unwrap();
        assert!(*done.lock().unwrap());
    }

    #[tokio::test]
    async fn a_vital_task_that_fails_ends_the_process_with_its_reason() {
        let shutdown = Shutdown::new();
        shutdown.spawn_vital("watch of nodes", async { Err::<(), _>("connection refused") });
        let failure = shutdown.finish(GRACE).await.unwrap_err();
        assert_eq!(failure.to_string(), "watch of nodes: connection refused");
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_ends_the_process() {
        let shutdown = Shutdown::new();
        shutdown.spawn_vital::<String>("planner", async { panic!("bug") });
        assert!(shutdown.finish(GRACE).await.unwrap_err().to_string().starts_with("planner:"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_does_not_hold_the_end_up_for_ever() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        shutdown.request();
        assert!(matches!(shutdown.finish(GRACE).await, Err(Failure::Grace(GRACE))));
    }
}
