//! Threads that do pods' netlink work, and the queue in front of them.
//!
//! Netlink calls block for up to a millisecond each (a veth creation holds the kernel's routing lock), too long for the
//! async runtime's own threads. Every thread has its own socket.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::DataplaneError;
use super::plumb::Plumber;

type Job = Box<dyn FnOnce(&mut Plumber) + Send>;

/// Hands work to the threads. They end when the last `Workers` is gone.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    queue: SyncSender<Job>,
    capacity: usize,
    /// By which numbers the kernel names the workers in notifications.
    ports: Arc<[u32]>,
}

impl Workers {
    /// Starts the threads in the caller's network namespace.
    pub(super) fn start(
        count: NonZeroUsize,
        capacity: usize,
        plumber: impl Fn() -> Result<Plumber, DataplaneError>,
    ) -> Result<Self, DataplaneError> {
        let (queue, jobs) = sync_channel::<Job>(capacity);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut ports = Vec::with_capacity(count.get());
        for _ in 0..count.get() {
            let plumber = plumber()?;
            ports.push(plumber.port());
            let jobs = jobs.clone();
            std::thread::Builder::new()
                .name("enipool-pods".into())
                .stack_size(256 * 1024)
                .spawn(move || work(plumber, &jobs))
                .map_err(|error| DataplaneError::io("start a worker thread", error))?;
        }
        Ok(Self { queue, capacity, ports: ports.into() })
    }

    pub(super) fn ports(&self) -> &[u32] {
        &self.ports
    }

    /// Runs `job` on one of the threads. The job is carried out even if the caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Plumber) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Result<T, DataplaneError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |plumber| {
            // An answer that nobody waits for any more is of no use to anybody.
            let _ = answer.send(job(plumber));
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => DataplaneError::Overloaded { waiting: self.capacity },
            TrySendError::Disconnected(_) => DataplaneError::Stopped,
        })?;
        answered.await.unwrap_or(Err(DataplaneError::Stopped))
    }
}

fn work(mut plumber: Plumber, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job(&mut plumber);
        if plumber.is_lost() {
            tracing::error!("a worker thread is stuck in a pod's network namespace and ends");
            return;
        }
    }
}
