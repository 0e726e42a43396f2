//! `docs/dataplane.md` says that it lists every object on a host: it is held to that here.

use std::path::{Path, PathBuf};

use super::desired::desired;
use super::layout;
use super::state::fixtures::{link, state};
use crate::args::{Args, Command, Paths};
use crate::cni::conflist::PLUGIN;
use crate::install::SUPPORT_SCRIPT_NAME;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dataplane.md"));

/// Whether the page has it as code, by itself or as the end of a path.
fn named(name: &str) -> bool {
    ["`", "/"].iter().any(|before| ["`", "/`"].iter().any(|after| PAGE.contains(&format!("{before}{name}{after}"))))
}

fn assert_named(names: impl IntoIterator<Item = String>) {
    let missing: Vec<_> = names.into_iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "docs/dataplane.md, 'Every object on a host', lacks {missing:?}");
}

#[test]
fn every_rule_and_routing_table_of_a_node_is_on_the_page() {
    let links = (0..=1).map(|device_index| (device_index, link(device_index))).collect();
    let wanted = desired(&state(1), &links, &std::collections::BTreeMap::new(), "eni");
    let offset = |table: u32| match table - layout::ENI_TABLE_BASE {
        0 => format!("{}", layout::POD_TABLE),
        // The page says it for any N, its marks too.
        _ => format!("{}+N", layout::ENI_TABLE_BASE),
    };
    for rule in &wanted.rules {
        let text = match (rule.mark, rule.source) {
            (Some((_, mask)), _) => format!("| {}: `fwmark N/{mask:#x} lookup {}`", rule.priority, offset(rule.table)),
            (None, Some(_)) => {
                format!("| {}: `from <ENI's primary address> lookup {}`", rule.priority, offset(rule.table))
            }
            (None, None) => format!("| {}: `from all lookup {}`", rule.priority, offset(rule.table)),
        };
        assert!(PAGE.contains(&text), "docs/dataplane.md lacks: {text}");
    }
    for route in &wanted.eni_routes {
        let text = format!("table {}: `default via", offset(route.table));
        assert!(PAGE.contains(&text), "docs/dataplane.md lacks: {text}");
    }
    let last = layout::eni_table(layout::MAX_DEVICE_INDEX);
    assert!(PAGE.contains(&format!("{} to {last}", layout::POD_TABLE)), "the page says which tables are ours");
}

#[test]
fn every_chain_map_and_set_is_on_the_page() {
    let links = (0..=1).map(|device_index| (device_index, link(device_index))).collect();
    let mut state = state(1);
    state.external_service_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    let table = desired(&state, &links, &std::collections::BTreeMap::new(), "eni").ruleset;
    let chains = table.chains.into_iter().map(|chain| chain.name.replace("eni-1", "eni-N"));
    let maps = table.maps.into_iter().map(|map| map.name.to_owned());
    let sets = table.sets.into_iter().map(|set| set.name.to_owned());
    assert_named(chains.chain(maps).chain(sets));
    assert_named([format!("ip {}", layout::NFT_TABLE)]);
}

/// As the agent finds them when it is told nothing.
fn paths() -> Paths {
    let arguments = ["enipool-agent", "run", "--node-name", "n"];
    match enipool_daemon::arguments::try_parse::<Args>(arguments).unwrap().command {
        Command::Run(run) => run.paths.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_file_that_the_agent_keeps_on_a_host_is_on_the_page() {
    let paths = paths();
    let on_host =
        |path: PathBuf| path.strip_prefix("/host").map_or_else(|_| path.clone(), |rest| Path::new("/").join(rest));
    let bin = Path::new("/opt/cni/bin");
    let whole = [on_host(paths.conflist()), bin.join(PLUGIN), bin.join(SUPPORT_SCRIPT_NAME)];
    assert_named(whole.iter().map(|path| path.display().to_string()));
    assert!(named(&paths.state_dir.display().to_string()), "the state folder");
    assert_named(paths.state().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()));
}
