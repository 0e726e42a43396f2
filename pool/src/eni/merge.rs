//! Merging what EC2 describes into what we know of an interface.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{Holdings, SETTLING};
use crate::address::Prefix;
use crate::time::Timestamp;

/// The difference that an answer makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merge {
    pub gained: BTreeSet<Ipv4Addr>,
    pub gained_prefixes: BTreeSet<Prefix>,
    pub lost: BTreeSet<Ipv4Addr>,
    pub lost_prefixes: BTreeSet<Prefix>,
    /// The answer differs from what we know but proves nothing: ask again at this time.
    pub ask_again: Option<Timestamp>,
}

impl Merge {
    pub fn changes_nothing(&self) -> bool {
        self.gained.is_empty()
            && self.gained_prefixes.is_empty()
            && self.lost.is_empty()
            && self.lost_prefixes.is_empty()
    }
}

/// What to make of EC2's answer `described`, asked for at `asked_at`, about an interface of which we know `known` and
/// which we last changed at `changed_at`. `leaving` are addresses and prefixes that we have taken away or are about to.
///
/// An answer within [`SETTLING`] of a change may be stale: it adds (except what is leaving) but never takes away.
pub fn merge(
    known: &Holdings,
    described: &Holdings,
    leaving: (&BTreeSet<Ipv4Addr>, &BTreeSet<Prefix>),
    changed_at: Timestamp,
    asked_at: Timestamp,
) -> Merge {
    let settled = changed_at.plus(SETTLING);
    let conclusive = asked_at >= settled;
    let mut merge = Merge::default();
    for address in described.addresses.difference(&known.addresses) {
        if conclusive || !leaving.0.contains(address) {
            merge.gained.insert(*address);
        } else {
            merge.ask_again = Some(settled);
        }
    }
    for prefix in described.prefixes.difference(&known.prefixes) {
        if conclusive || !leaving.1.contains(prefix) {
            merge.gained_prefixes.insert(*prefix);
        } else {
            merge.ask_again = Some(settled);
        }
    }
    let lost: BTreeSet<_> = known.addresses.difference(&described.addresses).copied().collect();
    let lost_prefixes: BTreeSet<_> = known.prefixes.difference(&described.prefixes).copied().collect();
    if conclusive {
        merge.lost = lost;
        merge.lost_prefixes = lost_prefixes;
    } else if !lost.is_empty() || !lost_prefixes.is_empty() {
        merge.ask_again = Some(settled);
    }
    merge
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holdings(addresses: &[u8]) -> Holdings {
        Holdings {
            mac: "02:00:00:00:00:01".parse().unwrap(),
            subnet: "subnet-1".parse().unwrap(),
            primary_ip: Ipv4Addr::new(10, 0, 0, 4),
            device_index: Some(0),
            addresses: addresses.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect(),
            prefixes: BTreeSet::new(),
        }
    }

    fn after(seconds: u64) -> Timestamp {
        Timestamp(1_000_000).plus(std::time::Duration::from_secs(seconds))
    }

    #[test]
    fn a_fresh_answer_takes_nothing_away_and_is_asked_for_again() {
        let none = (BTreeSet::new(), BTreeSet::new());
        let answer = merge(&holdings(&[5, 6]), &holdings(&[5]), (&none.0, &none.1), after(0), after(3));
        assert!(answer.changes_nothing());
        assert_eq!(answer.ask_again, Some(after(30)));
    }

    #[test]
    fn a_settled_answer_is_believed() {
        let none = (BTreeSet::new(), BTreeSet::new());
        let answer = merge(&holdings(&[5, 6]), &holdings(&[5, 7]), (&none.0, &none.1), after(0), after(30));
        assert_eq!(answer.lost, holdings(&[6]).addresses);
        assert_eq!(answer.gained, holdings(&[7]).addresses);
        assert_eq!(answer.ask_again, None);
    }

    #[test]
    fn an_address_just_taken_away_does_not_come_back_with_a_stale_answer() {
        let leaving = (holdings(&[6]).addresses, BTreeSet::new());
        let stale = merge(&holdings(&[5]), &holdings(&[5, 6]), (&leaving.0, &leaving.1), after(0), after(3));
        assert!(stale.gained.is_empty());
        assert!(stale.ask_again.is_some());
    }
}
