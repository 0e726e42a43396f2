//! Eventual consistency: a value whose readers see each change some time after it was made.

use std::collections::VecDeque;

use enipool_pool::Timestamp;

/// A value that changes at once for those who write, and later for those who read. `None` = it does not exist.
#[derive(Debug, Clone)]
pub struct Replicated<T> {
    current: Option<T>,
    /// What readers see until the given time, oldest first; times never decrease.
    past: VecDeque<(Timestamp, Option<T>)>,
}

impl<T: Clone> Replicated<T> {
    /// A value that readers find from `visible_at` on.
    pub fn created(value: T, now: Timestamp, visible_at: Timestamp) -> Self {
        let mut new = Self { current: None, past: VecDeque::new() };
        new.set(Some(value), now, visible_at);
        new
    }

    /// The truth.
    pub fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    /// What a reader sees at `now`.
    pub fn seen(&self, now: Timestamp) -> Option<&T> {
        match self.past.iter().find(|(until, _)| *until > now) {
            Some((_, old)) => old.as_ref(),
            None => self.current.as_ref(),
        }
    }

    /// Whether some reader may still see the past at `now`.
    pub fn unsettled(&self, now: Timestamp) -> bool {
        self.past.iter().any(|(until, _)| *until > now)
    }

    /// Changes the value now, for readers at `visible_at` (never before an earlier change is visible).
    pub fn set(&mut self, value: Option<T>, now: Timestamp, visible_at: Timestamp) {
        self.keep_past(now, visible_at);
        self.current = value;
    }

    /// Changes the value in place, with the same rule. `None` when it does not exist.
    pub fn modify<R>(&mut self, now: Timestamp, visible_at: Timestamp, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.current.is_some() {
            self.keep_past(now, visible_at);
        }
        self.current.as_mut().map(change)
    }

    /// When the last change is visible to all.
    pub fn settled_at(&self) -> Option<Timestamp> {
        self.past.back().map(|(until, _)| *until)
    }

    fn keep_past(&mut self, now: Timestamp, visible_at: Timestamp) {
        while self.past.front().is_some_and(|(until, _)| *until <= now) {
            self.past.pop_front();
        }
        let until = self.past.back().map_or(visible_at, |(last, _)| (*last).max(visible_at));
        if until > now {
            self.past.push_back((until, self.current.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_each_change_in_order_and_late() {
        let mut value = Replicated::created("new", Timestamp(100), Timestamp(200));
        assert_eq!(value.current(), Some(&"new"));
        assert_eq!(value.seen(Timestamp(199)), None, "just created: not found yet");
        assert_eq!(value.seen(Timestamp(200)), Some(&"new"));

        value.set(Some("changed"), Timestamp(300), Timestamp(400));
        value.set(None, Timestamp(310), Timestamp(320));
        assert_eq!(value.seen(Timestamp(399)), Some(&"new"));
        assert_eq!(value.seen(Timestamp(400)), None, "a later change is never seen before an earlier one");
        assert!(value.unsettled(Timestamp(399)) && !value.unsettled(Timestamp(400)));
    }

    #[test]
    fn without_a_lag_readers_see_the_truth_at_once() {
        let mut value = Replicated::created(1, Timestamp(5), Timestamp(5));
        assert_eq!(value.seen(Timestamp(5)), Some(&1));
        value.set(Some(2), Timestamp(5), Timestamp(5));
        assert_eq!(value.seen(Timestamp(5)), Some(&2));
    }
}
