use enipool_pool::ledger::AttachmentKey;

use super::*;
use crate::dataplane::DriftKind;
use crate::engine::Ec2ErrorView;
use crate::status::fixture::{NOW, snapshot};

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn waits(name: &str, container: &str) -> WaitingView {
    let pod = PodRef { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}").into() };
    WaitingView { key: AttachmentKey::new("enipool", container, "eth0"), pod, since: NOW }
}

fn short_of(reason: HoldReason, waiting: &[WaitingView]) -> PoolSnapshot {
    PoolSnapshot { shortage: Some(Shortage::Hold(reason)), waiting: waiting.to_vec(), ..snapshot() }
}

fn reasons(tellings: &[Telling]) -> Vec<&'static str> {
    tellings.iter().map(|telling| telling.reason).collect()
}

#[test]
fn a_pod_that_waits_hears_why_for_how_long_and_what_to_do_once_for_each_cause() {
    let mut teller = Teller::default();
    let mut short = short_of(HoldReason::InstanceNotRunning, &[waits("web-1", "first")]);
    short.shortage_ends = Some(after(12));
    assert_eq!(teller.look(&short, after(1)), [], "a moment is no news");
    assert_eq!(teller.wake_at(&short, after(1)), Some(after(2)));
    let told = teller.look(&short, after(2));
    assert_eq!(reasons(&told), ["InstanceNotRunning"]);
    assert_eq!(told[0].about, About::Pod(short.waiting[0].pod.clone()));
    let note = &told[0].note;
    for part in ["waited 2 s", "not running", "expected in 10 s", "kubectl enipool why web-1 -n shop"] {
        assert!(note.contains(part), "{note}");
    }
    // The kubelet tries again with another sandbox: the same pod, the same cause.
    short.waiting = vec![waits("web-1", "second")];
    assert_eq!(teller.look(&short, after(70)), []);
    let denied = PoolSnapshot { shortage: Some(Shortage::Hold(HoldReason::Paused)), ..short.clone() };
    assert_eq!(reasons(&teller.look(&denied, after(71))), ["Paused"], "another cause");
    assert_eq!(reasons(&teller.look(&short, after(603))), ["InstanceNotRunning"], "still, after ten minutes");
}

#[test]
fn what_is_on_its_way_is_told_late_and_is_no_warning() {
    let mut teller = Teller::default();
    let short = short_of(HoldReason::AttachInFlight, &[waits("web-1", "c")]);
    assert_eq!(teller.look(&short, after(14)), []);
    let told = teller.look(&short, after(15));
    assert_eq!((told.len(), told[0].warning), (1, false));
}

#[test]
fn a_call_that_fails_once_is_no_news_for_the_pod_that_waits_for_it() {
    let mut teller = Teller::default();
    let failed = short_of(HoldReason::Ec2Unavailable, &[waits("web-1", "c")]);
    assert_eq!(teller.look(&failed, after(4)), []);
    assert_eq!(reasons(&teller.look(&failed, after(5))), ["Ec2Unavailable"]);
}

#[test]
fn a_shortage_that_stands_is_told_on_the_pool_once() {
    let mut teller = Teller::default();
    let short = short_of(HoldReason::SubnetExhausted, &[]);
    assert_eq!(teller.look(&short, after(0)), []);
    assert_eq!(teller.wake_at(&short, after(0)), Some(after(5)));
    let told = teller.look(&short, after(5));
    assert_eq!((reasons(&told), &told[0].about), (vec!["SubnetExhausted"], &About::Pool));
    assert!(told[0].note.contains("add a subnet to the ENIPoolClass"), "{}", told[0].note);
    assert_eq!(teller.look(&short, after(300)), []);
    // It goes and comes: the same trouble.
    assert_eq!(teller.look(&snapshot(), after(301)), []);
    teller.look(&short, after(302));
    assert_eq!(teller.look(&short, after(310)), []);
}

#[test]
fn a_full_node_is_told_only_when_a_pod_waits_for_it() {
    let mut teller = Teller::default();
    for seconds in [0, 60] {
        assert_eq!(teller.look(&short_of(HoldReason::InstanceLimit, &[]), after(seconds)), []);
    }
    let told = teller.look(&short_of(HoldReason::InstanceLimit, &[waits("web-1", "c")]), after(61));
    assert_eq!(told.iter().filter(|telling| telling.about == About::Pool).count(), 1);
}

#[test]
fn a_call_that_ec2_denies_is_named() {
    let mut teller = Teller::default();
    let mut denied = short_of(HoldReason::AccessDenied, &[]);
    denied.last_ec2_error = Some(Ec2ErrorView {
        at: NOW,
        action: Action::AssignPrivateIpAddresses,
        kind: Ec2ErrorKind::AccessDenied,
        message: Some("UnauthorizedOperation".into()),
    });
    let told = teller.look(&denied, after(0));
    assert_eq!(reasons(&told), ["AccessDenied"]);
    assert!(told[0].note.contains("ec2:AssignPrivateIpAddresses") && told[0].note.contains("IAM policy"));
    assert_eq!(teller.look(&denied, after(60)), [], "nor by the shortage that follows from it");
    assert_eq!(teller.look(&denied, after(700)), [], "an error of long ago is no news");
}

#[test]
fn surprises_are_told_where_they_belong_and_many_of_a_kind_as_one() {
    let mut teller = Teller::default();
    let notice = |kind, text: &str| Notice { at: NOW, kind, text: text.into() };
    let mut surprised = snapshot();
    surprised.notices = vec![
        notice("VanishedENI", "eni-1 is no longer attached"),
        notice("ForgottenLease", "10.0.0.4 has no lease"),
        notice("ForgottenLease", "10.0.0.5 has no lease"),
        notice("HostSetUp", "cannot set the host up"),
    ];
    let told = teller.look(&surprised, after(0));
    assert_eq!(reasons(&told), ["ForgottenLease", "HostNotSetUp", "VanishedENI"]);
    assert!(told[0].note.ends_with("(and 1 more)") && !told[0].warning);
    assert_eq!((&told[1].about, &told[2].about), (&About::Node, &About::Pool));
    assert_eq!(teller.look(&surprised, after(1)), []);
    surprised.notices.push(notice("HostSetUp", "cannot set the host up"));
    assert_eq!(teller.look(&surprised, after(2)), [], "the same once more");
    surprised.notices.push(notice("VanishedENI", "eni-2 is no longer attached"));
    assert_eq!(reasons(&teller.look(&surprised, after(3))), ["VanishedENI"], "another interface");
}

#[test]
fn drift_is_told_once_in_ten_minutes_with_how_often() {
    let mut teller = Teller::default();
    let drift = Drift { kind: DriftKind::NftTable, detail: "table restored".into(), repaired: true };
    let first = teller.drift(&drift, after(0)).unwrap();
    assert_eq!((first.about, first.reason, first.warning), (About::Node, "DriftRepaired", false));
    for seconds in 1..10 {
        assert_eq!(teller.drift(&drift, after(seconds)), None);
    }
    let later = teller.drift(&drift, after(601)).unwrap();
    assert!(later.note.contains("(9 more of this kind"), "{}", later.note);
}

#[test]
fn a_node_in_trouble_keeps_within_its_budget_and_tells_the_rest_later() {
    let mut teller = Teller::default();
    let pods: Vec<_> = (0..100).map(|n| waits(&format!("web-{n}"), &format!("c-{n}"))).collect();
    let short = short_of(HoldReason::MaxPods, &pods);
    assert_eq!(teller.look(&short, after(2)).len(), 25);
    assert!(teller.withheld() > 0);
    assert_eq!(teller.look(&short, after(2)).len(), 0);
    assert_eq!(teller.look(&short, after(34)).len(), 3);
}

#[test]
fn a_pod_that_the_kernel_keeps_waiting_hears_the_kernel_s_words() {
    let mut teller = Teller::default();
    let refused = PoolSnapshot {
        shortage: Some(Shortage::HostNotSetUp),
        shortage_detail: Some("nft: No buffer space available".into()),
        ..short_of(HoldReason::Paused, &[waits("web-1", "c")])
    };
    assert_eq!(teller.look(&refused, after(4)), [], "one refusal is none");
    let told = teller.look(&refused, after(5));
    assert_eq!(reasons(&told), ["HostNotSetUp"], "on the pod; on the node its notice tells it");
    assert!(told[0].warning && told[0].note.contains("No buffer space") && told[0].note.contains("doctor"), "{told:?}");
}
