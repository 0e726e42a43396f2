//! What people do to interfaces while the pool has them: taken off, deleted, marked `no_manage`, of a kind that is not the
//! pool's.

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::{FaultKind, FaultRule, SimConfig, Timing};
use enipool_agent::engine::{EffectiveConfig, EniState};
use enipool_pool::EniId;
use enipool_pool::ec2::InterfaceType;
use enipool_pool::eni::{SETTLING, TAG_NO_MANAGE};

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

/// An m5.large with twelve pods: nine on the primary, three on a second interface, which is answered too.
async fn with_two_interfaces() -> (Node, EniId) {
    with_two_interfaces_in(SimConfig::instant()).await
}

async fn with_two_interfaces_in(sim: SimConfig) -> (Node, EniId) {
    let node = Node::start(sim, "m5.large", warm_ips(0)).await;
    for n in 0..12 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    let second = node.pool.snapshot().borrow().enis[1].id.clone();
    assert_eq!(node.leases_on(&second).len(), 3);
    (node, second)
}

/// Long enough after our last change for EC2's answers to prove something.
async fn until_answers_count() {
    tokio::time::sleep(2 * SETTLING).await;
}

async fn within(seconds: u64, mut what: impl FnMut() -> bool) -> bool {
    for _ in 0..seconds {
        if what() {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    what()
}

/// The interface is gone, its pods have their leases, and the pool goes on.
async fn check_vanished(node: &Node, gone: &EniId) {
    assert!(within(600, || node.pool.snapshot().borrow().strays.len() == 3).await, "nobody notices");
    assert_eq!(node.view(gone), None);
    assert!(node.has_told("VanishedENI"));
    assert_eq!(node.pool.attachments().len(), 12);
    let strays: Vec<_> = node.leases_on(gone).into_iter().map(|(_, lease)| lease.address).collect();
    let next = node.pool.acquire(key(12), pod(12), in_seconds(120)).await.unwrap();
    assert!(!strays.contains(&next.address), "that one is a running pod's");
    assert_eq!(node.interfaces(), 2, "the primary and a new one");
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_somebody_deletes_is_forgotten_and_its_pods_keep_their_leases() {
    let (node, second) = with_two_interfaces().await;
    until_answers_count().await;
    node.delete_by_hand(&second).await;
    check_vanished(&node, &second).await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_somebody_deletes_while_the_agent_is_down_is_forgotten_too() {
    let (mut node, second) = with_two_interfaces().await;
    node.kill();
    until_answers_count().await;
    node.delete_by_hand(&second).await;
    node.restart(warm_ips(0)).await;
    check_vanished(&node, &second).await;
}

/// The interface is attached again, and the host is set up for its pods.
async fn check_serves_again(node: &Node, eni: &EniId) {
    let back = || node.view(eni).is_some_and(|view| view.state == EniState::Ready) && node.is_attached(eni);
    assert!(within(600, back).await, "{:?}", node.view(eni));
    assert!(node.leases_on(eni).iter().all(|(_, lease)| node.kernel.serves(lease)));
}

/// The same interface serves the same pods again.
async fn check_back(node: &Node, eni: &EniId) {
    check_serves_again(node, eni).await;
    assert!(node.has_told("VanishedENI"));
    assert_eq!(node.leases_on(eni).len(), 3);
    assert_eq!((node.interfaces(), node.calls_of("CreateNetworkInterface")), (2, 1));
    assert!(node.pool.snapshot().borrow().strays.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_interface_with_pods_that_somebody_takes_off_is_attached_again() {
    let (node, second) = with_two_interfaces().await;
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    assert!(within(600, || node.has_told("VanishedENI")).await, "nobody notices");
    check_back(&node, &second).await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_with_pods_that_somebody_takes_off_while_the_agent_is_down_is_attached_again() {
    let (mut node, second) = with_two_interfaces().await;
    node.kill();
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    node.restart(warm_ips(0)).await;
    check_back(&node, &second).await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_nobody_needs_and_somebody_takes_off_is_deleted() {
    let (mut node, second) = with_two_interfaces().await;
    for (key, _) in node.leases_on(&second) {
        node.pool.release(&key).unwrap();
    }
    node.kill();
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    node.restart(warm_ips(0)).await;
    assert!(within(600, || node.interfaces() == 1).await, "it lies about");
    assert_eq!(node.view(&second), None);
}

/// An EC2 that takes ten minutes to take an interface off.
fn slow_to_detach() -> SimConfig {
    SimConfig { timing: Timing { detach: Delay::fixed(600_000), ..Timing::none() }, ..SimConfig::instant() }
}

/// The interface gets no new pod while EC2 takes it off.
async fn check_closed(node: &Node, eni: &EniId) {
    let next = node.pool.acquire(key(20), pod(20), in_seconds(300)).await.unwrap();
    assert_ne!(next.eni, *eni, "its address goes with the interface");
    assert!(node.is_attached(eni), "the test is too slow to tell");
    let view = node.view(eni).unwrap();
    assert_eq!((view.state, view.gives), (EniState::Retiring, false));
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_somebody_is_taking_off_gets_no_new_pods_and_comes_back_for_those_that_it_has() {
    let (mut node, second) = with_two_interfaces_in(slow_to_detach()).await;
    node.kill();
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    node.restart(warm_ips(0)).await;
    assert!(within(10, || node.has_told("BeingDetached")).await);
    check_closed(&node, &second).await;
    let leases = node.leases_on(&second);
    assert!(leases.len() == 3 && leases.iter().all(|(_, lease)| node.kernel.serves(lease)), "cut off");

    assert!(within(1200, || node.has_told("VanishedENI")).await, "nobody notices");
    check_serves_again(&node, &second).await;
}

#[tokio::test(start_paused = true)]
async fn an_interface_whose_detach_outlives_the_journal_gets_no_pods_and_does_not_leak() {
    let (mut node, second) = with_two_interfaces_in(slow_to_detach()).await;
    for (key, _) in node.leases_on(&second) {
        node.pool.release(&key).unwrap();
    }
    node.kill();
    node.detach_by_hand(&second).await;
    std::fs::remove_file(&node.journal).unwrap();
    until_answers_count().await;
    node.restart(warm_ips(0)).await;
    check_closed(&node, &second).await;
    let gone = || node.shared.with(|model| model.interface(&second).is_none());
    assert!(within(3600, gone).await, "{:?}", node.view(&second));
    assert!(within(60, || node.view(&second).is_none()).await);
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_was_given_too_much_while_it_was_off_gives_that_back_and_serves_its_pods_again() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    for n in 0..18 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    let second = node.pool.snapshot().borrow().enis[1].id.clone();
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    assert!(within(10, || !node.is_attached(&second)).await);
    node.give_more_by_hand(&second, 1).await;
    assert!(within(600, || node.has_told("VanishedENI")).await, "nobody notices");
    check_serves_again(&node, &second).await;
    assert_eq!(node.leases_on(&second).len(), 9);
}

#[tokio::test(start_paused = true)]
async fn an_interface_taken_off_and_marked_no_manage_is_left_to_whoever_did_that() {
    let (node, second) = with_two_interfaces().await;
    until_answers_count().await;
    node.mark_no_manage(&second).await;
    node.detach_by_hand(&second).await;
    assert!(within(600, || node.view(&second).is_none()).await, "{:?}", node.view(&second));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!node.is_attached(&second));
    assert_eq!(node.interfaces(), 2, "nor is it deleted");
    assert_eq!(node.leases_on(&second).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_interface_attached_with_no_manage_is_never_touched() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    let theirs = node.attach_by_hand(1, &[(TAG_NO_MANAGE, "true")]).await;
    for n in 0..18 {
        node.pool.acquire(key(n), pod(n), in_seconds(120)).await.unwrap();
    }
    for n in 0..18 {
        node.pool.release(&key(n)).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let view = node.view(&theirs).unwrap();
    assert_eq!((view.state, view.unmanaged_because), (EniState::Unmanaged, Some("its tag no_manage says so")));
    assert!(node.is_attached(&theirs));
    assert_eq!(node.interfaces(), 2, "ours ran empty and went");

    node.detach_by_hand(&theirs).await;
    assert!(within(600, || node.view(&theirs).is_none()).await, "its place counts as taken for ever");
}

#[tokio::test(start_paused = true)]
async fn the_place_of_one_that_was_last_shown_on_its_way_out_does_not_count_as_taken_for_ever() {
    // It goes 100 s after the detach. A start at 73 s asks again at 103 s, when EC2 still shows the past; IMDS is read first
    // after that, and does not show it any more.
    let timing = Timing { detach: Delay::fixed(100_000), visible: Delay::fixed(5000), ..Timing::none() };
    let (mut node, second) = with_two_interfaces_in(SimConfig { timing, ..SimConfig::instant() }).await;
    for (key, _) in node.leases_on(&second) {
        node.pool.release(&key).unwrap();
    }
    node.kill();
    node.detach_by_hand(&second).await;
    node.mark_no_manage(&second).await;
    tokio::time::sleep(Duration::from_secs(73)).await;
    node.restart(warm_ips(0)).await;
    assert!(within(10, || node.view(&second).is_some_and(|view| view.state == EniState::Unmanaged)).await);
    assert!(within(1200, || node.view(&second).is_none()).await, "its place counts as taken for ever");
}

#[tokio::test(start_paused = true)]
async fn trunks_and_elastic_fabric_adapters_are_never_touched_even_with_the_pools_tag() {
    for kind in [InterfaceType::Trunk, InterfaceType::Efa] {
        let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
        let special = node.attach_of_kind(kind, 1).await;
        node.kill();
        node.restart(warm_ips(0)).await;
        for n in 0..18 {
            node.pool.acquire(key(n), pod(n), in_seconds(120)).await.unwrap();
        }
        assert_eq!(node.leases_on(&special).len(), 0);
        let view = node.view(&special).unwrap();
        assert_eq!((view.state, view.gives), (EniState::Unmanaged, false), "{kind:?}");
        for n in 0..18 {
            node.pool.release(&key(n)).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(node.is_attached(&special), "{kind:?}");
        assert_eq!(node.interfaces(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interface_marked_no_manage_while_we_have_it_is_not_detached_when_it_runs_empty() {
    let (node, second) = with_two_interfaces().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    node.mark_no_manage(&second).await;
    let (last, rest) = { node.leases_on(&second).split_first().map(|(a, b)| (a.clone(), b.to_vec())) }.unwrap();
    for (key, _) in rest {
        node.pool.release(&key).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(node.kernel.serves(&last.1), "its pod runs on");
    node.pool.release(&last.0).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(node.is_attached(&second));
    assert_eq!(node.view(&second).map(|view| view.state), Some(EniState::Unmanaged));
    assert!(node.has_told("HandsOff"));
    let calls = node.calls();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.calls(), calls, "nor asked about again and again");
}

/// It is not ours any more, and its three pods run on.
async fn check_hands_off(node: &Node, eni: &EniId) {
    let view = node.view(eni).unwrap();
    assert_eq!((view.state, view.gives, view.counts.assigned), (EniState::Unmanaged, false, 3));
    let leases = node.leases_on(eni);
    assert_eq!(leases.len(), 3);
    assert!(leases.iter().all(|(_, lease)| node.kernel.serves(lease)), "cut off");
    assert!(node.pool.snapshot().borrow().strays.is_empty());
    let next = node.pool.acquire(key(20), pod(20), in_seconds(120)).await.unwrap();
    assert_ne!(next.eni, *eni);
    assert!(leases.iter().all(|(_, lease)| node.kernel.serves(lease)), "cut off");
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_an_interface_marked_no_manage_run_on_after_a_restart() {
    let (mut node, second) = with_two_interfaces().await;
    node.mark_no_manage(&second).await;
    node.kill();
    node.restart(warm_ips(0)).await;
    node.settle().await;
    check_hands_off(&node, &second).await;
    for (key, _) in node.leases_on(&second) {
        node.pool.release(&key).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(node.is_attached(&second), "nobody detaches it");
    node.kill();
    node.restart(warm_ips(0)).await;
    assert_eq!(node.view(&second).map(|view| view.state), Some(EniState::Unmanaged));
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_an_interface_marked_no_manage_run_on_although_the_journal_is_lost() {
    let (mut node, second) = with_two_interfaces().await;
    node.mark_no_manage(&second).await;
    for (n, (_, _, lease)) in node.pool.attachments().into_iter().enumerate() {
        node.kernel.show_pod(lease.address, &format!("eni{n}"));
    }
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    node.restart(warm_ips(0)).await;
    node.settle().await;
    check_hands_off(&node, &second).await;
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_an_untagged_interface_run_on_when_those_are_no_longer_to_be_used() {
    let config = EffectiveConfig { manage_untagged: true, ..warm_ips(0) };
    let mut node = Node::start(SimConfig::instant(), "m5.large", config.clone()).await;
    let untagged = node.attach_by_hand(1, &[]).await;
    node.kill();
    node.restart(config).await;
    for n in 0..12 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    assert_eq!(node.leases_on(&untagged).len(), 3);
    node.settle().await;
    node.kill();
    node.restart(warm_ips(0)).await;
    // Of one that was changed a moment ago the tags may lag.
    until_answers_count().await;
    check_hands_off(&node, &untagged).await;
}

#[tokio::test(start_paused = true)]
async fn leftovers_of_a_lost_journal_are_deleted_however_often_the_agent_dies_before_that() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.pool.acquire(key(0), pod(0), in_seconds(60)).await.unwrap();
    node.leave_over().await;
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    for _ in 0..3 {
        node.restart(warm_ips(0)).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        node.kill();
    }
    node.restart(warm_ips(0)).await;
    assert!(within(1200, || node.interfaces() == 1).await, "it lies about for ever");
    node.kill();
    let calls = node.calls();
    node.restart(warm_ips(0)).await;
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(node.calls(), calls + 1, "asked once and for all");
}

#[tokio::test(start_paused = true)]
async fn a_leftover_whose_deletion_the_agent_did_not_live_to_see_is_deleted_by_the_next_one() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.pool.acquire(key(0), pod(0), in_seconds(60)).await.unwrap();
    node.leave_over().await;
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    let denied = FaultRule::next(FaultKind::Denied, "DeleteNetworkInterface", 4);
    node.shared.with(|model| model.inject(denied));
    node.restart(warm_ips(0)).await;
    assert!(within(1200, || node.actions().contains(&"DeleteNetworkInterface")).await, "it is not even tried");
    node.kill();
    assert_eq!(node.interfaces(), 2);
    node.restart(warm_ips(0)).await;
    assert!(within(600, || node.interfaces() == 1).await, "nobody knows of it any more");
}

#[tokio::test(start_paused = true)]
async fn an_interface_taken_off_while_the_journal_is_lost_is_no_leftover_as_long_as_pods_have_its_addresses() {
    let (mut node, second) = with_two_interfaces().await;
    let on_second: Vec<_> = node.leases_on(&second).into_iter().map(|(_, lease)| lease).collect();
    for (n, (_, _, lease)) in node.pool.attachments().into_iter().enumerate() {
        node.kernel.show_pod(lease.address, &format!("eni{n}"));
    }
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    until_answers_count().await;
    node.detach_by_hand(&second).await;
    node.restart(warm_ips(0)).await;
    assert!(within(1200, || node.is_attached(&second)).await, "deleted under its pods");
    node.settle().await;
    assert!(on_second.iter().all(|lease| node.kernel.serves(lease)));
    assert_eq!(node.leases_on(&second).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_address_taken_by_hand_and_given_to_another_interface_serves_there_once_the_first_is_known_to_lack_it() {
    let (node, second) = with_two_interfaces().await;
    until_answers_count().await;
    let (_, lease) = node.leases_on(&second)[0].clone();
    node.take_by_hand(&lease).await;
    let primary = node.pool.snapshot().borrow().enis[0].id.clone();
    // A pod of the primary goes, so that there is room for it.
    node.pool.release(&node.leases_on(&primary)[0].0).unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let moved = enipool_agent::engine::Lease { eni: primary.clone(), ..lease.clone() };
    let spare = node.view(&primary).unwrap().addresses.iter().find(|a| !a.state.is_held()).map(|a| a.address);
    if let Some(spare) = spare {
        node.take_by_hand(&enipool_agent::engine::Lease { address: spare, ..moved.clone() }).await;
    }
    node.give_by_hand(&moved);
    let is_there = || node.view(&primary).unwrap().addresses.iter().any(|view| view.address == lease.address);
    assert!(within(900, is_there).await, "{:?}", node.view(&primary));
    assert!(node.pool.snapshot().borrow().strays.is_empty());
    assert_eq!(node.pool.attachments().len(), 11);
}
