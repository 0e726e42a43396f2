//! Where the figures of each call go. The server measures; whoever listens makes metrics of it.

use std::time::Duration;

use enipool_cni::Verb;

/// What an ADD spent its time on; zero where a step was not reached, or is not of this verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// For an address to come: zero when one was free.
    pub wait: Duration,
    /// Taking or giving back the address and writing that down.
    pub ledger: Duration,
    /// The kernel: link, addresses, routes.
    pub netlink: Duration,
}

/// One call that has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    pub verb: Verb,
    /// `success`, or the reason in one word of a closed set.
    pub outcome: &'static str,
    /// From the last byte of the request to the first of the answer.
    pub total: Duration,
    pub phases: Phases,
}

/// Hears of every call. Called on the path of the call: must not block.
pub trait Observer: Send + Sync + 'static {
    fn finished(&self, call: &Finished);
    /// A deletion was taken from the disk queue and carried out.
    fn drained(&self) {}
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn finished(&self, _: &Finished) {}
}
