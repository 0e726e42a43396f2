//! Watches that outlive their API server: attempts in vain come with growing pauses, and what the server itself answers is
//! no outage. It knows nothing of what is watched.

use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, future::ready};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Error, Event};

/// First and longest pause, before a node's own share is added: 5,000 nodes with two watches each then make less than a
/// thousand attempts a second, and each is back soon after the API server is.
const PAUSES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(10));
/// HTTP 410: the API server is there, but no longer knows where the watch was. Usual after its restart.
const GONE: u16 = 410;

/// The pauses of one watch of one node.
#[derive(Debug, Clone)]
pub struct Pauses {
    next: Duration,
    /// From 0 to 1: nodes that lost the API server together do not come back together.
    share: f64,
}

impl Pauses {
    /// `spread`: any number that differs from node to node.
    pub fn new(spread: u64) -> Self {
        let thousandth = u32::try_from(spread % 1000).unwrap_or(0);
        Self { next: PAUSES.0, share: f64::from(thousandth) / 1000.0 }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSES.1);
        Some(pause.mul_f64(1.0 + self.share))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = PAUSES.0;
    }
}

/// The events of a watch, but for [`Event::Init`]: it comes before the API server was asked, so it is no sign of life and
/// must not end the growth of the pauses. A watch that has expired begins anew at once.
pub fn patient<K: Send>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    pauses: Pauses,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    events
        .try_filter(|event| ready(!matches!(event, Event::Init)))
        .filter(|event| ready(!matches!(event, Err(Error::WatchError(status)) if status.code == GONE)))
        .backoff(pauses)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::core::Status;
    use tokio::time::Instant;

    use super::*;

    fn refused() -> watcher::Result<Event<()>> {
        Err(Error::InitialListFailed(kube::Error::LinesCodecMaxLineLengthExceeded))
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_in_vain_come_ever_more_rarely_though_each_begins_a_list() {
        let attempts = stream::iter((0..8).flat_map(|_| [Ok(Event::Init), refused()]));
        let mut events = std::pin::pin!(patient(attempts, Pauses::new(0)));
        let begun = Instant::now();
        let mut at = Vec::new();
        while let Some(event) = events.next().await {
            assert!(event.is_err(), "a list that begins is no answer");
            at.push(begun.elapsed().as_millis());
        }
        let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps, [800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_expired_begins_anew_at_once() {
        let gone = Error::WatchError(Status::failure("too old resource version", "Expired").with_code(GONE).boxed());
        let attempts = stream::iter([Err(gone), Ok(Event::Init), Ok(Event::InitApply(()))]);
        let mut events = std::pin::pin!(patient(attempts, Pauses::new(0)));
        let begun = Instant::now();
        assert!(matches!(events.next().await, Some(Ok(Event::InitApply(())))));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn an_answer_ends_the_growth_and_nodes_differ() {
        let mut pauses = Pauses::new(500);
        assert_eq!(
            pauses.by_ref().take(2).collect::<Vec<_>>(),
            [Duration::from_millis(1200), Duration::from_millis(2400)]
        );
        pauses.reset();
        assert_eq!(pauses.next(), Some(Duration::from_millis(1200)));
        assert_eq!(Pauses::new(0).next(), Some(PAUSES.0));
    }
}
