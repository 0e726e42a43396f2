//! The end-to-end scenarios. They share one cluster, in the order of [`ALL`]: each leaves it as it found it, except that
//! the first installs enipool.

mod authorisation;
mod autonomy;
mod chaining;
mod cleanup;
mod doctor;
mod drift;
mod footprint;
mod headroom;
mod inside;
mod install;
mod life;
mod metrics;
mod nodes;
mod prefixes;
mod table;
mod traffic;

use anyhow::{Result, ensure};
pub use cleanup::Traces;
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
    /// What was on a node before enipool came.
    pub found: Option<Traces>,
}

/// A scenario: a sentence about behaviour, and what shows that it is true.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, Result<()>>,
}

/// How many of the first scenarios the others stand on.
pub const STAGE: usize = 2;

/// All of them. The first two set the stage.
pub const ALL: [Scenario; 31] = [
    Scenario { name: "nodes_get_ready_when_the_chart_is_installed", run: install::nodes_get_ready },
    Scenario { name: "pods_of_a_deployment_live_on_addresses_of_several_enis", run: install::pods_on_several_enis },
    Scenario {
        name: "the_api_server_refuses_a_pool_that_breaks_a_rule_and_says_what_to_do",
        run: install::bad_pools_are_refused,
    },
    Scenario { name: "a_service_account_without_a_role_may_not_look_at_nodes", run: authorisation::without_a_role },
    Scenario { name: "a_kubelet_may_change_its_own_node_only", run: authorisation::kubelet },
    Scenario { name: "an_agents_token_is_of_no_use_against_another_nodes_pool", run: authorisation::agents_token },
    Scenario { name: "operator_and_agents_may_do_what_they_need_and_no_more", run: authorisation::daemons },
    Scenario { name: "pods_on_different_nodes_and_the_outside_hear_each_other", run: traffic::pods_talk },
    Scenario { name: "a_cluster_ip_answers_from_pods_of_both_nodes", run: traffic::cluster_ip },
    Scenario { name: "a_node_port_answers_on_either_node", run: traffic::node_port },
    Scenario { name: "enipools_show_what_ec2_says", run: life::numbers_are_true },
    Scenario { name: "the_operators_figures_are_the_sums_of_the_agents_own", run: metrics::sums },
    Scenario { name: "the_log_has_the_guides_line_for_each_metric", run: metrics::log_lines },
    Scenario { name: "cloudwatch_gets_every_period_also_after_a_denial", run: metrics::cloudwatch },
    Scenario { name: "daemons_log_by_the_hour_where_the_aws_plugin_did", run: footprint::hourly_logs },
    Scenario { name: "idle_daemons_take_little_of_a_node", run: footprint::small },
    Scenario { name: "a_patched_warm_target_brings_an_eni_within_seconds", run: life::patch_brings_an_eni },
    Scenario { name: "pods_keep_talking_while_their_agent_restarts", run: life::agent_restart },
    Scenario { name: "addresses_come_back_when_pods_come_and_go", run: life::pod_churn },
    Scenario {
        name: "host_ports_and_bandwidth_limits_of_chained_plugins_hold",
        run: chaining::host_port_and_bandwidth,
    },
    Scenario { name: "what_somebody_deletes_from_the_kernel_is_put_back_and_told", run: drift::put_back },
    Scenario { name: "the_doctor_finds_what_ec2_took_away_and_what_helps", run: doctor::finds_what_ec2_took },
    Scenario { name: "a_node_goes_over_to_prefixes_and_back_while_its_pods_talk", run: prefixes::over_and_back },
    Scenario { name: "a_node_without_a_free_prefix_serves_single_addresses", run: prefixes::without_a_prefix },
    Scenario {
        name: "what_a_subnet_keeps_for_others_is_not_taken_however_long_pods_wait",
        run: headroom::kept_for_others,
    },
    Scenario { name: "a_node_without_the_operator_serves_pods_and_grows_by_itself", run: autonomy::operator_away },
    Scenario { name: "nodes_without_an_api_server_serve_pods_and_grow", run: autonomy::api_server_away },
    Scenario { name: "cleanup_leaves_a_node_as_it_was_found", run: cleanup::node_as_found },
    Scenario { name: "prefixes_drain_away_when_their_pods_have_gone", run: prefixes::drained },
    Scenario { name: "a_node_that_goes_leaves_no_eni_behind", run: nodes::node_removal },
    Scenario { name: "no_packet_left_through_an_eni_that_does_not_own_its_source", run: traffic::nothing_spoofed },
];

/// The scenarios whose name contains one of these words, and those that set the stage; all of them when no word is given. A
/// word that is in no name is refused: it would pass for a test that succeeds.
pub fn chosen(words: &[String]) -> Result<Vec<Scenario>> {
    let unknown: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !ALL.iter().any(|scenario| scenario.name.contains(word)))
        .collect();
    ensure!(
        unknown.is_empty(),
        "no scenario has {} in its name; there are:\n  {}",
        unknown.join(" or "),
        ALL.map(|scenario| scenario.name).join("\n  ")
    );
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let chosen = ALL.into_iter().enumerate().filter(|(index, scenario)| *index < STAGE || wanted(scenario.name));
    Ok(chosen.map(|(_, scenario)| scenario).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Result<Vec<&'static str>, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        chosen(&words).map(|chosen| chosen.iter().map(|one| one.name).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_all_scenarios_run() {
        assert_eq!(names(&[]).map(|names| names.len()), Ok(ALL.len()));
    }

    #[test]
    fn a_word_chooses_the_scenarios_that_have_it_in_their_name_and_those_that_set_the_stage() {
        let (first, second) = (ALL[0].name, ALL[1].name);
        assert_eq!(names(&["agent_restarts"]), Ok(vec![first, second, "pods_keep_talking_while_their_agent_restarts"]));
        assert_eq!(names(&["nodes_get_ready"]), Ok(vec![first, second]), "those may be named too");
    }

    #[test]
    fn a_word_that_is_in_no_name_is_refused_with_the_names_that_there_are() {
        let refused = names(&["agent_restarts", "typo"]).unwrap_err();
        assert!(refused.contains("no scenario has typo in its name"), "{refused}");
        assert!(ALL.iter().all(|scenario| refused.contains(scenario.name)), "{refused}");
    }
}
