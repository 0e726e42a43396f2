//! Which agents are silent: their figures are old, and nobody knows how old. Pure.
//!
//! Agents write when something changes, so a status that stands still proves nothing. What tells is Kubernetes's own view
//! of the agent's pod (its readiness, which turns false also when the node stops answering) and a spec that the agent does
//! not take up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::Timestamp;

/// An agent that does not answer for this long is silent: a restart in a roll-out takes seconds.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(60);

/// What is seen of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    /// Its pod is ready.
    pub ready: bool,
    /// `metadata.generation` of its ENIPool.
    pub generation: Option<i64>,
    /// `status.observedGeneration`.
    pub observed: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    observed: Option<i64>,
    /// Since when it has not answered; `None` while it does.
    unanswered: Option<Timestamp>,
    round: u64,
}

/// What is kept of each node from look to look.
#[derive(Debug, Default)]
pub(super) struct Silence {
    nodes: HashMap<Arc<str>, Seen>,
    round: u64,
}

impl Silence {
    /// Begins a look; nodes that are not asked about in it are forgotten by the next one.
    pub(super) fn begin(&mut self) {
        let round = self.round;
        self.nodes.retain(|_, seen| seen.round == round);
        self.round += 1;
    }

    /// Whether the agent of this node is silent. `now` comes from a clock that does not step.
    pub(super) fn is_silent(&mut self, node: &Arc<str>, sign: Sign, now: Timestamp) -> bool {
        let before = self.nodes.get(node).copied();
        let answers = sign.ready
            && (sign.observed == sign.generation || before.is_none_or(|before| before.observed != sign.observed));
        let unanswered = match (answers, before) {
            (true, _) => None,
            (false, Some(before)) => Some(before.unanswered.unwrap_or(now)),
            // An agent that is away when we first look has been so for an unknown time.
            (false, None) => Some(Timestamp(now.0.saturating_sub(as_millis(SILENT_AFTER)))),
        };
        self.nodes.insert(node.clone(), Seen { observed: sign.observed, unanswered, round: self.round });
        unanswered.is_some_and(|since| now.since(since) >= SILENT_AFTER)
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sign = Sign { ready: true, generation: Some(3), observed: Some(3) };
    const DOWN: Sign = Sign { ready: false, ..GOOD };

    /// Whether the node is silent after these signs, one every 10 s from 1,000 s on.
    fn after(signs: &[Sign]) -> bool {
        let mut silence = Silence::default();
        let node: Arc<str> = "n".into();
        let mut silent = false;
        for (n, sign) in (0..).zip(signs) {
            silence.begin();
            silent = silence.is_silent(&node, *sign, Timestamp(1_000_000 + n * 10_000));
        }
        silent
    }

    #[test]
    fn an_agent_is_silent_after_a_minute_without_readiness() {
        assert!(!after(&[GOOD, DOWN, DOWN, DOWN]), "a restart");
        assert!(after(&[&[GOOD][..], &[DOWN; 7]].concat()));
        assert!(!after(&[&[GOOD][..], &[DOWN; 7], &[GOOD]].concat()), "it is back");
    }

    #[test]
    fn an_agent_that_was_never_seen_ready_is_silent_at_once() {
        assert!(after(&[DOWN]));
        assert!(!after(&[GOOD]));
    }

    #[test]
    fn a_spec_that_is_not_taken_up_for_a_minute_is_silence() {
        let ahead = |generation, observed| Sign { ready: true, generation: Some(generation), observed: Some(observed) };
        assert!(after(&[&[GOOD][..], &[ahead(4, 3); 8]].concat()));
        let busy: Vec<Sign> = (4..20).map(|generation| ahead(generation, generation - 1)).collect();
        assert!(!after(&busy), "it follows, one behind");
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let mut silence = Silence::default();
        let node: Arc<str> = "n".into();
        silence.begin();
        silence.is_silent(&node, GOOD, Timestamp(1_000_000));
        silence.begin();
        silence.begin();
        assert!(silence.nodes.is_empty());
    }
}
