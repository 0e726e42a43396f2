//! What the doctor reads of the kernel is what the dataplane made.

use enipool_agent::dataplane::NftTable;

use crate::lab::can_run;
use crate::vpc::{Node, Vpc};

#[test]
fn everything_that_was_made_for_an_eni_is_seen_and_what_somebody_took_away_is_not() {
    if !can_run("everything_that_was_made_for_an_eni_is_seen_and_what_somebody_took_away_is_not") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 2);
    node.state.secondary[1].prefixes = vec!["10.0.1.112/28".parse().unwrap()];
    node.with_dataplane(async |dataplane| {
        let bare = dataplane.inspect(&[0, 1, 2]).await.unwrap();
        assert!(!bare.pod_rule && bare.table.is_none() && bare.mark_rules.is_empty(), "{bare:?}");
        dataplane.ensure_host(&node.state).await.unwrap();
        let seen = dataplane.inspect(&[0, 1, 2]).await.unwrap();
        assert!(seen.pod_rule);
        let table = seen.table.unwrap();
        for eni in &node.state.secondary {
            let index = eni.device_index;
            let link = &seen.links[&eni.mac];
            assert!(link.up && link.name == format!("eth{index}"), "{link:?}");
            assert!(seen.mark_rules.contains(&index));
            assert!(seen.source_rules.contains(&(index, eni.primary_address)));
            assert_eq!(seen.default_routes.get(&index), Some(&link.index));
            assert!(NftTable::chains_for(index).iter().all(|chain| table.chains.contains(chain)), "{table:?}");
            let of_prefixes = eni.prefixes.iter().flat_map(|prefix| prefix.addresses());
            for address in eni.addresses.iter().copied().chain(of_prefixes) {
                assert_eq!(table.leads(address), Some(index), "{address}");
            }
        }
        assert_eq!(table.leads(node.state.primary.addresses[0]), None);
    });
    // Another process, as the doctor is: nobody repairs.
    node.netns.sh("ip rule del priority 500; ip rule del priority 1200 table 20001; ip route flush table 20002
        ip link set eth2 down; nft flush map ip enipool addresses");
    node.with_dataplane(async |dataplane| {
        let seen = dataplane.inspect(&[0, 1, 2]).await.unwrap();
        assert!(!seen.pod_rule);
        assert_eq!(seen.mark_rules, [2].into());
        assert!(!seen.default_routes.contains_key(&2) && seen.default_routes.contains_key(&1));
        assert!(!seen.links[&node.state.secondary[1].mac].up);
        assert_eq!(seen.table.unwrap().leads(node.state.secondary[0].addresses[0]), None);
    });
    node.netns.sh("nft delete table ip enipool");
    node.with_dataplane(async |dataplane| assert_eq!(dataplane.inspect(&[]).await.unwrap().table, None));
}
