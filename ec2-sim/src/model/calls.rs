//! The ledger of calls: what was asked of EC2, by whom, and how it ended. Tests and benchmarks read it.

use std::collections::{BTreeMap, VecDeque};

use enipool_pool::Timestamp;
use serde::Serialize;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallRecord {
    /// Counts up from 1 over the life of the model.
    pub seq: u64,
    pub at: Timestamp,
    pub action: &'static str,
    /// The access key that signed the request, or what an in-process caller named itself.
    pub caller: String,
    /// Ids that the request named or created.
    pub resources: Vec<String>,
    pub client_token: Option<String>,
    /// EC2's error code; absent when the call succeeded.
    pub error: Option<String>,
    /// False when the answer never reached the caller.
    pub answered: bool,
    pub latency_ms: u64,
}

/// Sums of one action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ActionCount {
    pub calls: u64,
    pub succeeded: u64,
    pub errors: BTreeMap<String, u64>,
}

/// Sums since the start or the last reset, and the latest calls.
#[derive(Debug, Clone)]
pub struct CallLog {
    counts: BTreeMap<&'static str, ActionCount>,
    recent: VecDeque<CallRecord>,
    keep: usize,
    seq: u64,
}

impl CallLog {
    /// Keeps the latest `keep` calls one by one; sums count all.
    pub fn new(keep: usize) -> Self {
        Self { counts: BTreeMap::new(), recent: VecDeque::new(), keep, seq: 0 }
    }

    pub(super) fn record(&mut self, mut record: CallRecord) {
        self.seq += 1;
        record.seq = self.seq;
        let count = self.counts.entry(record.action).or_default();
        count.calls += 1;
        match &record.error {
            None => count.succeeded += 1,
            Some(code) => *count.errors.entry(code.clone()).or_default() += 1,
        }
        if self.recent.len() >= self.keep {
            self.recent.pop_front();
        }
        if self.keep > 0 {
            self.recent.push_back(record);
        }
    }

    pub fn counts(&self) -> &BTreeMap<&'static str, ActionCount> {
        &self.counts
    }

    /// Calls of `action` so far, failed ones included.
    pub fn count(&self, action: &str) -> u64 {
        self.counts.get(action).map_or(0, |count| count.calls)
    }

    /// The latest calls after `seq`, oldest first.
    pub fn since(&self, seq: u64) -> impl Iterator<Item = &CallRecord> {
        self.recent.iter().filter(move |record| record.seq > seq)
    }

    /// The number of the latest call.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    pub fn reset(&mut self) {
        self.counts.clear();
        self.recent.clear();
    }
}
