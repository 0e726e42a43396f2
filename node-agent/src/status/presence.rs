//! Whether the operator plans for this node, judged by what the node sees of it. Pure: time comes in.
//!
//! The operator's Lease is not read: with thousands of agents that alone would be a load on the API server. What counts is
//! whether somebody answers this node: while pods wait for the operator's leave the agent *asks* (`status.askedAt`), and
//! the operator answers (`spec.allocation.answers`) even where it has nothing to give. So an operator that keeps a subnet's
//! headroom is not taken for one that is away.

use std::time::Duration;

use enipool_pool::Timestamp;

/// How long the API server may be out of reach before the agent plans for itself.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(20);
/// How long a question may go unanswered before the agent plans for itself.
pub const STARVED_FOR: Duration = Duration::from_secs(10);
/// An answered question is asked again after this long, while pods still wait: two small writes for each such node.
pub const ASK_AGAIN: Duration = Duration::from_secs(20);

/// What the agent has seen of the operator.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// Since when the API server does not answer.
    unreachable_since: Option<Timestamp>,
    question: Option<Question>,
    /// Whether an allocation has ever come.
    allocated: bool,
    given_up: bool,
}

/// That somebody plan for this node.
#[derive(Debug, Clone, Copy)]
struct Question {
    /// Its name on the API: whole seconds, whatever becomes of fractions on the way.
    asked_at: Timestamp,
    /// Since when no sign of life came; `None`: it is answered.
    open_since: Option<Timestamp>,
}

impl Question {
    fn new(now: Timestamp) -> Self {
        Self { asked_at: Timestamp(now.0 / 1000 * 1000), open_since: Some(now) }
    }
}

impl Presence {
    /// After a restart. `planned_for`: whether somebody planned for the node by the last word that was kept. It counts until
    /// the API server has been silent for long enough, from now on.
    pub fn resumed(planned_for: bool, now: Timestamp) -> Self {
        Self { unreachable_since: Some(now), allocated: planned_for, ..Self::default() }
    }

    /// Whether an allocation has ever come, or was there before a restart.
    pub fn is_planned_for(&self) -> bool {
        self.allocated
    }

    /// The API server answered or failed.
    pub fn reachable(&mut self, reachable: bool, now: Timestamp) {
        if reachable {
            self.unreachable_since = None;
        } else {
            self.unreachable_since.get_or_insert(now);
        }
    }

    /// A new allocation came: somebody plans. `answers`: the question of which its writer knew.
    pub fn allocated(&mut self, answers: Option<Timestamp>, now: Timestamp) {
        self.allocated = true;
        self.given_up = false;
        if let Some(question) = &mut self.question {
            // One that was written before the question came up says only that the operator lived until now.
            question.open_since = (answers != Some(question.asked_at)).then_some(now);
        }
    }

    /// Whether pods wait now for nothing but the operator's leave.
    pub fn starved(&mut self, starved: bool, now: Timestamp) {
        // An operator that comes back finds the question and answers it, though nobody waits any more.
        if !starved && !self.given_up {
            self.question = None;
            return;
        }
        let stale = |question: &Question| question.open_since.is_none() && now.since(question.asked_at) >= ASK_AGAIN;
        if self.question.as_ref().is_none_or(stale) {
            self.question = Some(Question::new(now));
        }
    }

    /// The question for the status, while there is one.
    pub fn asked_at(&self) -> Option<Timestamp> {
        self.question.map(|question| question.asked_at)
    }

    /// Whether the agent plans for itself. `jitter` spreads the nodes: it is added to both limits.
    pub fn away(&mut self, jitter: Duration, now: Timestamp) -> bool {
        let over =
            |since: Option<Timestamp>, limit: Duration| since.is_some_and(|since| now.since(since) >= limit + jitter);
        // Once given up, only a new allocation brings the operator back: an answer of the API server does not plan.
        if over(self.question.and_then(|question| question.open_since), STARVED_FOR) {
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

    fn planned_for() -> Presence {
        let mut presence = Presence::default();
        presence.allocated(None, at(0));
        presence
    }

    #[test]
    fn until_the_first_allocation_the_agent_plans_for_itself() {
        let mut presence = Presence::default();
        assert!(presence.away(NO_JITTER, at(0)));
        presence.allocated(None, at(0));
        assert!(!presence.away(NO_JITTER, at(1)));
    }

    #[test]
    fn after_a_restart_the_last_word_counts_until_the_api_server_has_been_silent_for_long() {
        let mut presence = Presence::resumed(true, at(0));
        assert!(!presence.away(NO_JITTER, at(19)));
        assert!(presence.away(NO_JITTER, at(20)));
        presence.reachable(true, at(21));
        assert!(!presence.away(NO_JITTER, at(21)));
        assert!(Presence::resumed(false, at(0)).away(NO_JITTER, at(0)), "alone before, alone after");
    }

    #[test]
    fn after_a_restart_pods_that_wait_in_vain_end_the_wait_as_before() {
        let mut presence = Presence::resumed(true, at(0));
        presence.starved(true, at(2));
        assert!(!presence.away(NO_JITTER, at(11)));
        assert!(presence.away(NO_JITTER, at(12)));
    }

    #[test]
    fn a_short_absence_of_the_api_server_changes_nothing() {
        let mut presence = planned_for();
        presence.reachable(false, at(0));
        assert!(!presence.away(NO_JITTER, at(19)));
        assert!(presence.away(NO_JITTER, at(20)));
        presence.reachable(true, at(21));
        assert!(!presence.away(NO_JITTER, at(21)));
    }

    #[test]
    fn pods_that_wait_for_a_turn_in_vain_end_the_wait_until_the_operator_speaks_again() {
        let mut presence = planned_for();
        presence.starved(true, at(0));
        assert!(!presence.away(NO_JITTER, at(9)));
        assert!(presence.away(NO_JITTER, at(10)));
        presence.starved(false, at(11));
        assert!(presence.away(NO_JITTER, at(12)), "served by our own plan, not by the operator's");
        assert_eq!(presence.asked_at(), Some(at(0)), "the question stands for an operator that comes back");
        presence.allocated(Some(at(0)), at(13));
        assert!(!presence.away(NO_JITTER, at(13)));
        presence.starved(false, at(14));
        assert_eq!(presence.asked_at(), None);
    }

    #[test]
    fn an_operator_that_answers_is_there_though_it_gives_nothing() {
        let mut presence = planned_for();
        for now in 0..600 {
            presence.starved(true, at(now));
            if now % 20 == 3 {
                presence.allocated(presence.asked_at(), at(now));
            }
            assert!(!presence.away(NO_JITTER, at(now)), "at {now} s");
        }
    }

    #[test]
    fn an_operator_that_dies_while_pods_wait_is_missed_at_the_next_question() {
        let mut presence = planned_for();
        presence.starved(true, at(0));
        presence.allocated(Some(at(0)), at(1));
        let missed = (2..100).find(|&now| {
            presence.starved(true, at(now));
            presence.away(NO_JITTER, at(now))
        });
        assert_eq!(missed, Some(30));
    }

    #[test]
    fn an_allocation_from_before_the_question_gives_the_operator_its_time_anew() {
        let mut presence = planned_for();
        presence.starved(true, at(0));
        presence.allocated(None, at(5));
        assert!(!presence.away(NO_JITTER, at(14)));
        assert!(presence.away(NO_JITTER, at(15)));
    }

    #[test]
    fn a_question_has_whole_seconds_and_is_known_again() {
        let mut presence = planned_for();
        presence.starved(true, Timestamp(1_999));
        assert_eq!(presence.asked_at(), Some(at(1)));
        presence.allocated(presence.asked_at(), at(2));
        assert!(!presence.away(NO_JITTER, at(20)));
    }

    #[test]
    fn jitter_keeps_nodes_from_giving_up_together() {
        let mut presence = planned_for();
        presence.starved(true, at(0));
        assert!(!presence.away(Duration::from_secs(5), at(14)));
        assert!(presence.away(Duration::from_secs(5), at(15)));
    }
}
