//! The toy's interfaces: every address with its state, and what the planner is shown of them.

use super::super::*;
use crate::address::Prefix;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Assigned(u32),
    Cooling(Timestamp),
    /// An Unassign is under way.
    Leaving,
}

#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) view: EniView,
    pub(crate) singles: Vec<State>,
    pub(crate) prefixes: Vec<(Prefix, [State; 16])>,
}

impl Eni {
    pub(crate) fn states_mut(&mut self) -> impl Iterator<Item = &mut State> {
        self.singles.iter_mut().chain(self.prefixes.iter_mut().flat_map(|(_, states)| states))
    }

    pub(crate) fn view(&self) -> EniView {
        let leaving = self.singles.iter().filter(|state| **state == State::Leaving).count();
        EniView {
            singles: tally(&self.singles),
            singles_leaving: u32::try_from(leaving).unwrap(),
            prefixes: self
                .prefixes
                .iter()
                .map(|(prefix, states)| PrefixView {
                    prefix: *prefix,
                    counts: tally(states),
                    leaving: states[0] == State::Leaving,
                })
                .collect(),
            ..self.view.clone()
        }
    }
}

pub(crate) fn tally(states: &[State]) -> Counts {
    states.iter().fold(Counts::default(), |mut counts, state| {
        match state {
            State::Free => counts.free += 1,
            State::Assigned(_) => counts.assigned += 1,
            State::Cooling(_) => counts.cooling += 1,
            State::Leaving => {}
        }
        counts
    })
}
