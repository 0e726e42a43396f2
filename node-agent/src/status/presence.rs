//! Whether the operator plans for this node, judged by what the node sees of it. Pure: time comes in.
//!
//! The operator's Lease is not read: with thousands of agents that alone would be a load on the API server. What counts is
//! whether somebody answers this node's demand.

use std::time::Duration;

use enipool_pool::Timestamp;

/// How long the API server may be out of reach before the agent plans for itself.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(20);
/// How long pods may wait for a turn that does not come before the agent plans for itself.
pub const STARVED_FOR: Duration = Duration::from_secs(10);

/// What the agent has seen of the operator.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// Since when the API server does not answer.
    unreachable_since: Option<Timestamp>,
    /// Since when pods wait and only the operator's word is missing.
    starved_since: Option<Timestamp>,
    /// Whether an allocation has ever come.
    allocated: bool,
    given_up: bool,
}

impl Presence {
    /// The API server answered or failed.
    pub fn reachable(&mut self, reachable: bool, now: Timestamp) {
        if reachable {
            self.unreachable_since = None;
        } else {
            self.unreachable_since.get_or_insert(now);
        }
    }

    /// A new allocation came: somebody plans.
    pub fn allocated(&mut self) {
        self.allocated = true;
        self.given_up = false;
        self.starved_since = None;
    }

    /// Whether pods wait now for nothing but the operator's leave.
    pub fn starved(&mut self, starved: bool, now: Timestamp) {
        if starved {
            self.starved_since.get_or_insert(now);
        } else {
            self.starved_since = None;
        }
    }

    /// Whether the agent plans for itself. `jitter` spreads the nodes: it is added to both limits.
    pub fn away(&mut self, jitter: Duration, now: Timestamp) -> bool {
        let over =
            |since: Option<Timestamp>, limit: Duration| since.is_some_and(|since| now.since(since) >= limit + jitter);
        // Once given up, only a new allocation brings the operator back: an answer of the API server does not plan.
        if over(self.starved_since, STARVED_FOR) {
            self.given_up = true;
        }
        !self.allocated || self.given_up || over(self.unreachable_since, UNREACHABLE_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    const NO_JITTER: Duration = Duration::ZERO;

    #[test]
    fn until_the_first_allocation_the_agent_plans_for_itself() {
        let mut presence = Presence::default();
        assert!(presence.away(NO_JITTER, at(0)));
        presence.allocated();
        assert!(!presence.away(NO_JITTER, at(1)));
    }

    #[test]
    fn a_short_absence_of_the_api_server_changes_nothing() {
        let mut presence = Presence::default();
        presence.allocated();
        presence.reachable(false, at(0));
        assert!(!presence.away(NO_JITTER, at(19)));
        assert!(presence.away(NO_JITTER, at(20)));
        presence.reachable(true, at(21));
        assert!(!presence.away(NO_JITTER, at(21)));
    }

    #[test]
    fn pods_that_wait_for_a_turn_in_vain_end_the_wait_until_the_operator_speaks_again() {
        let mut presence = Presence::default();
        presence.allocated();
        presence.starved(true, at(0));
        assert!(!presence.away(NO_JITTER, at(9)));
        assert!(presence.away(NO_JITTER, at(10)));
        presence.starved(false, at(11));
        assert!(presence.away(NO_JITTER, at(12)), "served by our own plan, not by the operator's");
        presence.allocated();
        assert!(!presence.away(NO_JITTER, at(13)));
    }

    #[test]
    fn jitter_keeps_nodes_from_giving_up_together() {
        let mut presence = Presence::default();
        presence.allocated();
        presence.starved(true, at(0));
        assert!(!presence.away(Duration::from_secs(5), at(14)));
        assert!(presence.away(Duration::from_secs(5), at(15)));
    }
}
