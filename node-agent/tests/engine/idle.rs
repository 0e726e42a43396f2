//! What a node that nobody uses asks of EC2.

use std::time::Duration;

use ec2_sim::SimConfig;
use enipool_agent::engine::EffectiveConfig;

use crate::node::Node;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn in_its_first_hour_an_idle_fresh_node_asks_ec2_two_questions_and_none_after_a_restart() {
    let mut node = Node::start(SimConfig::default(), "m5.large", EffectiveConfig::default()).await;
    // The pool is as it should be after seconds.
    tokio::time::sleep(MINUTE).await;
    let (begun, filled) = node.shared.with(|model| (model.now(), model.calls().last_seq()));
    tokio::time::sleep(60 * MINUTE).await;
    let mut asked: Vec<_> =
        node.shared.with(|model| model.calls().since(filled).map(|call| (call.action, call.at.since(begun))).collect());
    asked.sort();
    let questions: Vec<_> = asked.iter().map(|(action, _)| *action).collect();
    assert_eq!(questions, ["DescribeInstanceTypes", "DescribeNetworkInterfaces"], "{asked:?}");
    let when = 8 * MINUTE..=20 * MINUTE;
    assert!(asked.iter().all(|(_, after)| when.contains(after)), "{asked:?}");

    let before = node.calls();
    node.kill();
    node.restart(EffectiveConfig::default()).await;
    assert_eq!(node.calls(), before + 1, "a restart looks once");
    tokio::time::sleep(60 * MINUTE).await;
    assert_eq!(node.calls(), before + 1, "and idles then");
}
