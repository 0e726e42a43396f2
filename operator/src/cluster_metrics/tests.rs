//! The cluster's figures from objects as the watches bring them.

use enipool_crds::fixtures::pool_with_enis;
use enipool_pool::cloudwatch::METRICS_PER_REQUEST;

use super::*;

fn at(seconds: u64) -> Clocks {
    Clocks { wall: Timestamp(seconds * 1000), steady: Timestamp(seconds * 1000) }
}

fn node(name: &str, agent_ready: bool) -> PoolSeen {
    PoolSeen { name: name.into(), pool: Arc::new(answered(name)), agent_ready }
}

fn answered(name: &str) -> ENIPool {
    let mut pool = pool_with_enis(name, 2, 9, 5);
    pool.metadata.generation = pool.status.as_ref().and_then(|status| status.observed_generation);
    pool
}

#[test]
fn a_node_leaves_the_sums_a_minute_after_its_agent_fell_silent() {
    let mut memory = Memory::default();
    let network = Network::default();
    let both = |ready| [node("a", true), node("b", ready)];
    let assigned = |figures: &Figures| (figures.held.assigned, figures.silent_nodes);
    assert_eq!(assigned(&memory.look(&both(true), &network, at(10_000))), (10, 0));
    assert_eq!(assigned(&memory.look(&both(false), &network, at(10_010))), (10, 0));
    assert_eq!(assigned(&memory.look(&both(false), &network, at(10_070))), (5, 1));
    assert_eq!(assigned(&memory.look(&both(true), &network, at(10_080))), (10, 0));
}

/// 500 nodes of the largest kind of status.
fn large_cluster() -> Vec<PoolSeen> {
    (0..500)
        .map(|n| {
            let mut pool = pool_with_enis("n", 15, 49, 700);
            pool.metadata.generation = Some(1);
            PoolSeen { name: format!("node-{n}").into(), pool: Arc::new(pool), agent_ready: true }
        })
        .collect()
}

#[test]
fn a_round_of_500_nodes_takes_under_10_ms() {
    let (pools, network) = (large_cluster(), Network::default());
    let mut memory = Memory::default();
    let before = Figures::default();
    // The best of several: the machine may be busy.
    let best = (0..10)
        .map(|round| {
            let started = std::time::Instant::now();
            let figures = memory.look(&pools, &network, at(10_000 + round));
            let lines = points::log_lines(&figures, &before);
            let data = points::data(&figures, &before, "prod", Timestamp(1));
            assert!(!lines.is_empty() && data.len() <= METRICS_PER_REQUEST, "one request: {}", data.len());
            started.elapsed()
        })
        .min()
        .unwrap();
    assert!(best < Duration::from_millis(10), "{best:?}");
}

#[test]
fn the_runway_counts_what_is_above_the_headroom() {
    let mut memory = Memory::default();
    let id: SubnetId = "subnet-0a1".parse().unwrap();
    let mut runway = None;
    for minute in 0..=10u32 {
        let network = Network::for_tests(&id, 1000 - 10 * minute, 400);
        runway = memory.look(&[], &network, at(10_000 + u64::from(minute) * 60)).subnets[&id].runway;
    }
    // 900 free, 400 of them headroom, ten a minute.
    assert_eq!(runway.map(|runway| runway.as_secs()), Some(3000));
}
