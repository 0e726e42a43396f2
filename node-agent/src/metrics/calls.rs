//! CNI calls and the engine's notices as metrics.

use std::sync::Arc;
use std::time::Duration;

use enipool_cni::Verb;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AddPhase, Metrics};
use crate::cni::{Finished, Observer};
use crate::engine::{Notice, PoolSnapshot};

/// Outcome of a call that did what it was asked for.
const SUCCESS: &str = "success";
/// Outcomes of an ADD that got no address for another reason than that there was none.
const NOT_FOR_WANT: [&str; 3] = ["Cancelled", "Journal", "NotServing"];

impl Observer for Metrics {
    fn finished(&self, call: &Finished) {
        let succeeded = call.outcome == SUCCESS;
        let phases = call.phases;
        // Either it waited or it took one that was there; neither for a repeated ADD, or one that was refused before.
        let to_address = phases.wait + phases.ledger;
        match call.verb {
            Verb::Add => {
                self.add_finished(call.outcome, call.total);
                if to_address > Duration::ZERO {
                    self.add_phase(AddPhase::Wait, phases.wait);
                    self.add_phase(AddPhase::Ledger, phases.ledger);
                }
                if phases.netlink > Duration::ZERO {
                    self.add_phase(AddPhase::Netlink, phases.netlink);
                }
                let got_one = phases.netlink > Duration::ZERO;
                if to_address > Duration::ZERO && got_one {
                    self.time_to_address(to_address);
                }
                let want = to_address > Duration::ZERO && !got_one && !NOT_FOR_WANT.contains(&call.outcome);
                self.0.aws.add(!succeeded && want);
            }
            Verb::Del => {
                self.del_finished(call.outcome, call.total);
                self.0.aws.del();
            }
            _ => {}
        }
        // A failing STATUS tells a state, and a CHECK that differs did its work.
        if !succeeded && matches!(call.verb, Verb::Add | Verb::Del | Verb::Gc) {
            self.0.aws.error(call.verb.as_str());
        }
    }
}

/// Counts the engine's notices, until `shutdown` or the engine's end.
pub async fn count_notices(
    metrics: Metrics,
    mut snapshots: watch::Receiver<Arc<PoolSnapshot>>,
    shutdown: CancellationToken,
) {
    let mut last: Option<Notice> = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        for notice in snapshot.notices_after(last.as_ref()) {
            metrics.0.aws.notice(notice.kind);
        }
        last = snapshot.notices.last().cloned().or(last);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Phases;
    use crate::engine::AcquireError;
    use crate::metrics::tests::scrape;
    use crate::status::fixture::{NOW, snapshot};

    const MS: Duration = Duration::from_millis(1);

    fn add(outcome: &'static str, wait: Duration, ledger: Duration, netlink: Duration) -> Finished {
        Finished { verb: Verb::Add, outcome, total: 5 * MS, phases: Phases { wait, ledger, netlink } }
    }

    fn after(calls: &[Finished]) -> String {
        scrape(|registry| {
            let metrics = Metrics::register(registry);
            for call in calls {
                metrics.finished(call);
            }
        })
    }

    #[test]
    fn the_time_to_an_address_includes_the_wait_for_it() {
        let no = Duration::ZERO;
        let text = after(&[add(SUCCESS, no, MS, MS), add(SUCCESS, 2000 * MS, no, MS), add(SUCCESS, no, no, MS)]);
        assert!(text.contains("enipool_time_to_address_seconds_count 2\n"), "a repeated ADD had its address:\n{text}");
        assert!(text.contains("enipool_time_to_address_seconds_sum 2.001\n"), "{text}");
        assert!(text.contains("enipool_cni_add_phase_seconds_count{phase=\"netlink\"} 3\n"), "{text}");
    }

    #[test]
    fn an_add_without_an_address_is_told_from_one_that_failed_otherwise() {
        let no = Duration::ZERO;
        let text = after(&[
            add("SubnetExhausted", 58_000 * MS, no, no),
            add("Cancelled", 100 * MS, no, no),
            add(AcquireError::NotServing("it starts".into()).label(), no, MS, no),
            add("kernel", no, MS, MS),
            add("bad_request", no, no, no),
        ]);
        assert!(text.contains("\nawscni_no_available_ip_addresses 1\n"), "{text}");
        assert!(text.contains("\nawscni_add_ip_req_count 5\n"), "{text}");
        assert!(text.contains("\nawscni_ipamd_error_count{fn=\"ADD\"} 5\n"), "{text}");
    }

    fn notice(kind: &'static str, n: u64) -> Notice {
        Notice { at: NOW, kind, text: n.to_string() }
    }

    #[test]
    fn a_notice_is_counted_once_also_when_older_ones_are_forgotten() {
        let all: Vec<_> = (0..6).map(|n| notice("StrayAddress", n)).collect();
        let holding = |notices: &[Notice]| PoolSnapshot { notices: notices.to_vec(), ..snapshot() };
        assert_eq!(holding(&all[..3]).notices_after(None).len(), 3);
        assert_eq!(holding(&all[1..5]).notices_after(Some(&all[2])), &all[3..5]);
        assert_eq!(holding(&all[3..6]).notices_after(Some(&all[0])).len(), 3, "more came than are kept");
        assert_eq!(holding(&all[3..6]).notices_after(Some(&all[5])), &[]);
    }

    #[tokio::test]
    async fn notices_are_counted_until_the_engine_ends() {
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mut first = snapshot();
        first.notices = vec![notice("VanishedENI", 1)];
        let mut second = first.clone();
        second.notices.push(notice("StrayAddress", 2));
        let (sender, receiver) = watch::channel(Arc::new(first));
        let counting = tokio::spawn(count_notices(metrics, receiver, CancellationToken::new()));
        tokio::task::yield_now().await;
        sender.send(Arc::new(second)).unwrap();
        tokio::task::yield_now().await;
        drop(sender);
        counting.await.unwrap();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["awscni_force_removed_enis 1", "awscni_force_removed_ips 1"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
