//! Values on their way to CloudWatch. Pure: what is sent next, and what becomes of it.

use std::collections::VecDeque;

use enipool_pool::cloudwatch::{Datum, METRICS_PER_REQUEST};

/// Most values that wait: hours of an ordinary cluster, and some 5 MB.
pub(super) const WAITING_MAX: usize = 20_000;

/// A queue with a bound: when it is full the oldest values go.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Datum>,
    dropped: u64,
}

impl Outbox {
    /// Adds a period's values.
    pub(super) fn push(&mut self, data: Vec<Datum>) {
        self.waiting.extend(data);
        let too_many = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..too_many);
        self.dropped += u64::try_from(too_many).unwrap_or(u64::MAX);
    }

    /// The oldest values, as many as one request may hold. They stay until [`Self::remove`].
    pub(super) fn next(&self) -> Vec<Datum> {
        self.waiting.iter().take(METRICS_PER_REQUEST).cloned().collect()
    }

    /// The oldest `count` values are done with.
    pub(super) fn remove(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    /// The oldest `count` values will never be taken.
    pub(super) fn give_up(&mut self, count: usize) {
        self.remove(count);
        self.dropped += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// Values that were never sent.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use enipool_pool::Timestamp;
    use enipool_pool::cloudwatch::Unit;

    use super::*;

    fn data(at: u64, count: usize) -> Vec<Datum> {
        let datum = Datum { name: "pods", dimensions: Vec::new(), value: 1.0, unit: Unit::Count, at: Timestamp(at) };
        vec![datum; count]
    }

    #[test]
    fn the_oldest_values_go_first_and_stay_until_taken() {
        let mut outbox = Outbox::default();
        outbox.push(data(1, 600));
        outbox.push(data(2, 600));
        let batch = outbox.next();
        assert_eq!((batch.len(), batch[0].at, batch[999].at), (1000, Timestamp(1), Timestamp(2)));
        assert_eq!(outbox.next(), batch, "nothing is lost when the request fails");
        outbox.remove(batch.len());
        assert_eq!(outbox.next().len(), 200);
        outbox.remove(200);
        assert!(outbox.next().is_empty());
        assert_eq!(outbox.dropped(), 0);
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_values_and_counts_them() {
        let mut outbox = Outbox::default();
        outbox.push(data(1, WAITING_MAX));
        outbox.push(data(2, 5));
        assert_eq!((outbox.waiting.len(), outbox.dropped()), (WAITING_MAX, 5));
        outbox.give_up(1000);
        assert_eq!(outbox.dropped(), 1005);
    }
}
