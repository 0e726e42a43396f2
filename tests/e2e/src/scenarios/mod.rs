//! The end-to-end scenarios. They share one cluster, in the order of [`ALL`]: each leaves it as it found it, except that
//! the first installs enipool.

mod install;
mod life;
mod nodes;
mod traffic;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::{
    cluster::{Cluster, Narrator},
    workload::Pod,
};

/// What scenarios act on.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Cluster,
    pub narrator: Narrator,
    /// The deployment that most scenarios look at.
    pub pods: Vec<Pod>,
}

/// A scenario: a sentence about behaviour, and what shows that it is true.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, Result<()>>,
}

/// All of them. The first two set the stage.
pub const ALL: [Scenario; 12] = [
    Scenario { name: "nodes_get_ready_when_the_chart_is_installed", run: install::nodes_get_ready },
    Scenario { name: "pods_of_a_deployment_live_on_addresses_of_several_enis", run: install::pods_on_several_enis },
    Scenario {
        name: "the_api_server_refuses_a_pool_that_breaks_a_rule_and_says_what_to_do",
        run: install::bad_pools_are_refused,
    },
    Scenario { name: "pods_on_different_nodes_and_the_outside_hear_each_other", run: traffic::pods_talk },
    Scenario { name: "a_cluster_ip_answers_from_pods_of_both_nodes", run: traffic::cluster_ip },
    Scenario { name: "a_node_port_answers_on_either_node", run: traffic::node_port },
    Scenario { name: "enipools_show_what_ec2_says", run: life::numbers_are_true },
    Scenario { name: "a_patched_warm_target_brings_an_eni_within_seconds", run: life::patch_brings_an_eni },
    Scenario { name: "pods_keep_talking_while_their_agent_restarts", run: life::agent_restart },
    Scenario { name: "addresses_come_back_when_pods_come_and_go", run: life::pod_churn },
    Scenario { name: "a_node_that_goes_leaves_no_eni_behind", run: nodes::node_removal },
    Scenario { name: "no_packet_left_through_an_eni_that_does_not_own_its_source", run: traffic::nothing_spoofed },
];
