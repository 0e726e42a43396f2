//! What the kernel should hold for each ENI of the pool, against what it holds. Pure.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use enipool_pool::ec2::Eni;

use super::compare::{CloudPicture, Finding, InKernel, KernelPicture, LedgerPicture, addresses};
use crate::dataplane::layout::{
    MARK_RULE_PRIORITY, NFT_TABLE, POD_RULE_PRIORITY, POD_TABLE, SOURCE_RULE_PRIORITY, eni_table,
};
use crate::dataplane::{EniObjects, NftTable, SeenLink};

/// The agent repairs what it made as soon as it hears of the change, and looks at all of it once a minute.
const REPAIR: &str = "The agent puts it back within a minute; if this stays, look for \"drift\" in ipamd.log and restart \
                      the agent's pod";
/// Addresses that a line names before it counts the others.
const NAMED: usize = 5;

/// The differences, in the order of how much they hurt.
pub(super) fn compare(cloud: &CloudPicture, ledger: &LedgerPicture, kernel: &KernelPicture) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |kind, text: String| found.push(Finding { kind, text });
    let host = &kernel.host;
    let used = |eni: &Eni| ledger.in_kernel.get(&eni.id).copied();
    let attached = || cloud.attached.iter().filter_map(|eni| Some((eni, eni.attachment.as_ref()?.device_index)));
    let secondary: Vec<_> =
        attached().filter(|(eni, index)| *index > 0 && used(eni) == Some(InKernel::Everything)).collect();

    if !secondary.is_empty() && host.table.is_none() {
        let what = "every pod on a secondary ENI sends by the wrong interface, and nothing is translated for the world outside";
        find("MissingTable", format!("the kernel has no nftables table ip {NFT_TABLE}: {what}. {REPAIR}"));
    }
    if attached().any(|(eni, _)| used(eni) == Some(InKernel::Everything)) && !host.pod_rule {
        let rule = format!("{POD_RULE_PRIORITY}: from all lookup {POD_TABLE}");
        find("MissingRule", format!("the rule \"{rule}\" is missing: no packet finds a pod of this node. {REPAIR}"));
    }
    for (eni, device_index) in attached().filter(|(eni, _)| used(eni).is_some()) {
        match host.links.get(&eni.mac) {
            None => find(
                "MissingLink",
                format!(
                    "EC2 shows {} at device index {device_index}, but the node has no link with its MAC {}: no packet of its addresses can leave. For some seconds after an attach this is normal. If it stays, look at `ip link` and `dmesg`; reboot or replace the node",
                    eni.id, eni.mac
                ),
            ),
            Some(link) if !link.up => {
                find("LinkDown", format!("link {} of {} is down: its pods are cut off. {REPAIR}", link.name, eni.id));
            }
            Some(link) if device_index > 0 && used(eni) == Some(InKernel::Everything) => {
                routing(eni, device_index, link, host, &mut find);
            }
            Some(_) => {}
        }
    }
    if let Some(table) = &host.table {
        for (eni, device_index) in secondary {
            marks(eni, device_index, ledger, table, &mut find);
        }
    }
    found
}

/// Rules and routes of a secondary ENI.
fn routing(
    eni: &Eni,
    device_index: u32,
    link: &SeenLink,
    host: &EniObjects,
    find: &mut impl FnMut(&'static str, String),
) {
    let table = eni_table(device_index);
    if !host.mark_rules.contains(&device_index) {
        let rule = format!("{MARK_RULE_PRIORITY}: fwmark {device_index:#x} lookup {table}");
        find(
            "MissingRule",
            format!(
                "the rule \"{rule}\" is missing: pods on {} send by the primary ENI, and the VPC drops it. {REPAIR}",
                eni.id
            ),
        );
    }
    if !host.source_rules.contains(&(device_index, eni.primary_ip)) {
        let rule = format!("{SOURCE_RULE_PRIORITY}: from {} lookup {table}", eni.primary_ip);
        find(
            "MissingRule",
            format!(
                "the rule \"{rule}\" is missing: what the node itself sends from {} leaves by the wrong ENI. {REPAIR}",
                eni.id
            ),
        );
    }
    match host.default_routes.get(&device_index) {
        Some(index) if *index == link.index => {}
        Some(_) => find(
            "MissingENIRoute",
            format!(
                "the default route of table {table} does not lead over {}, the link of {}: its pods send by the wrong ENI. {REPAIR}",
                link.name, eni.id
            ),
        ),
        None => find(
            "MissingENIRoute",
            format!(
                "table {table} has no default route over {}: pods on {} reach nothing outside the node. {REPAIR}",
                link.name, eni.id
            ),
        ),
    }
}

/// Chains and elements of a secondary ENI, for the addresses that EC2 and the pool agree on.
fn marks(
    eni: &Eni,
    device_index: u32,
    ledger: &LedgerPicture,
    table: &NftTable,
    find: &mut impl FnMut(&'static str, String),
) {
    for chain in NftTable::chains_for(device_index).iter().filter(|chain| !table.chains.contains(*chain)) {
        find(
            "MissingChain",
            format!(
                "nftables table ip {NFT_TABLE} lacks the chain {chain}: pods on {} send by the wrong ENI. {REPAIR}",
                eni.id
            ),
        );
    }
    let held = ledger.enis.get(&eni.id);
    let lost: Vec<Ipv4Addr> = addresses(eni)
        .into_iter()
        .filter(|address| held.is_some_and(|held| held.contains(address)))
        .filter(|address| table.leads(*address) != Some(device_index))
        .collect();
    if !lost.is_empty() {
        let (pods, id) = (lost.iter().filter(|address| ledger.pods.contains_key(address)).count(), &eni.id);
        find(
            "MissingElement",
            format!(
                "nftables table ip {NFT_TABLE} does not send packets of {} to {id}, which owns them ({pods} in use by pods): the VPC drops what they send. {REPAIR}",
                listed(&lost)
            ),
        );
    }
}

fn listed(addresses: &[Ipv4Addr]) -> String {
    let named = addresses.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>();
    let mut text = named.join(", ");
    if let Some(more) = addresses.len().checked_sub(NAMED).filter(|more| *more > 0) {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use enipool_pool::ec2::{Attachment, EniStatus};

    use super::super::compare::fixture::eni;
    use super::*;

    const ADDRESS: [u8; 4] = [10, 0, 1, 5];

    fn attached(id: &str, device_index: u32, secondary: &[[u8; 4]]) -> Eni {
        let index = u8::try_from(device_index).unwrap();
        Eni {
            mac: format!("0a:00:00:00:00:{index:02x}").parse().unwrap(),
            primary_ip: [10, 0, index, 4].into(),
            prefixes: if device_index == 0 { Vec::new() } else { vec!["10.0.1.16/28".parse().unwrap()] },
            attachment: Some(Attachment {
                id: format!("eni-attach-{index}").parse().unwrap(),
                instance: None,
                device_index,
                network_card: 0,
                delete_on_termination: true,
            }),
            ..eni(id, EniStatus::InUse, secondary)
        }
    }

    /// A primary ENI, and a second one with an address and a prefix; the kernel has all that it should have.
    fn agreement() -> (CloudPicture, LedgerPicture, KernelPicture) {
        let enis = [attached("eni-0", 0, &[]), attached("eni-1", 1, &[ADDRESS])];
        let ledger = LedgerPicture {
            enis: enis.iter().map(|eni| (eni.id.clone(), addresses(eni))).collect(),
            in_kernel: enis.iter().map(|eni| (eni.id.clone(), InKernel::Everything)).collect(),
            ..LedgerPicture::default()
        };
        let link = |index: u32| SeenLink { index: 2 + index, name: format!("eth{index}"), up: true };
        let host = EniObjects {
            links: (0..).zip(&enis).map(|(index, eni)| (eni.mac, link(index))).collect(),
            pod_rule: true,
            mark_rules: BTreeSet::from([1]),
            source_rules: BTreeSet::from([(1, [10, 0, 1, 4].into())]),
            default_routes: BTreeMap::from([(1, 3)]),
            table: Some(NftTable {
                chains: NftTable::chains_for(1).into(),
                addresses: BTreeMap::from([(ADDRESS.into(), 1)]),
                prefixes: BTreeMap::from([([10, 0, 1, 16].into(), 1)]),
            }),
        };
        let kernel = KernelPicture { host, ..KernelPicture::default() };
        (CloudPicture { attached: enis.into(), tagged: Vec::new() }, ledger, kernel)
    }

    /// What is found after `spoil` has spoilt the agreement.
    fn after(spoil: impl FnOnce(&mut CloudPicture, &mut LedgerPicture, &mut KernelPicture)) -> Vec<Finding> {
        let (mut cloud, mut ledger, mut kernel) = agreement();
        spoil(&mut cloud, &mut ledger, &mut kernel);
        compare(&cloud, &ledger, &kernel)
    }

    fn kinds(found: &[Finding]) -> Vec<&'static str> {
        found.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_kernel_that_has_all_that_the_enis_need_agrees() {
        assert_eq!(after(|_, _, _| ()), []);
    }

    #[test]
    fn each_missing_object_is_found_and_said_what_to_do_about() {
        type Spoil = fn(&mut EniObjects);
        let spoilers: [(Spoil, &str, &str); 9] = [
            (|host| drop(host.links.pop_last()), "MissingLink", "0a:00:00:00:00:01"),
            (|host| host.links.values_mut().for_each(|link| link.up = link.index != 3), "LinkDown", "eth1"),
            (|host| host.pod_rule = false, "MissingRule", "500: from all lookup 20000"),
            (|host| host.mark_rules.clear(), "MissingRule", "1200: fwmark 0x1 lookup 20001"),
            (|host| host.source_rules.clear(), "MissingRule", "1201: from 10.0.1.4 lookup 20001"),
            (|host| host.default_routes.clear(), "MissingENIRoute", "table 20001"),
            (|host| host.table = None, "MissingTable", "ip enipool"),
            (|host| host.table.as_mut().unwrap().chains.retain(|chain| chain != "eni-1"), "MissingChain", "eni-1"),
            (|host| host.table.as_mut().unwrap().addresses.clear(), "MissingElement", "10.0.1.5"),
        ];
        for (spoil, kind, words) in spoilers {
            let found = after(|_, _, kernel| spoil(&mut kernel.host));
            assert_eq!(kinds(&found), [kind], "{found:?}");
            assert!(found[0].text.contains(words), "{found:?}");
            let says_what_to_do = ["restart the agent's pod", "replace the node"];
            assert!(says_what_to_do.iter().any(|words| found[0].text.contains(words)), "{found:?}");
        }
    }

    #[test]
    fn an_element_that_leads_to_another_eni_is_as_good_as_none_and_long_lists_are_cut() {
        let found = after(|_, _, kernel| {
            let table = kernel.host.table.as_mut().unwrap();
            table.prefixes.values_mut().for_each(|index| *index = 2);
        });
        assert_eq!(kinds(&found), ["MissingElement"]);
        assert!(found[0].text.contains("10.0.1.20 and 11 more"), "{found:?}");
    }

    #[test]
    fn an_eni_that_is_not_set_up_yet_needs_its_link_only_and_one_that_goes_nothing() {
        let bare = |kernel: &mut KernelPicture| {
            let links = std::mem::take(&mut kernel.host.links);
            kernel.host = EniObjects { links, pod_rule: true, ..EniObjects::default() };
        };
        let id = "eni-1".parse().unwrap();
        let found = after(|_, ledger, kernel| {
            bare(kernel);
            ledger.in_kernel.insert(id, InKernel::Link);
        });
        assert_eq!(found, []);
        let id = "eni-1".parse().unwrap();
        let found = after(|_, ledger, kernel| {
            bare(kernel);
            kernel.host.links.pop_last();
            ledger.in_kernel.remove(&id);
        });
        assert_eq!(found, [], "the doctor says elsewhere what EC2 shows and the pool does not");
    }

    #[test]
    fn an_address_that_ec2_or_the_pool_lacks_is_not_asked_of_the_kernel() {
        let found = after(|_, ledger, kernel| {
            kernel.host.table.as_mut().unwrap().addresses.clear();
            ledger.enis.values_mut().for_each(|held| held.retain(|address| *address != Ipv4Addr::from(ADDRESS)));
        });
        assert_eq!(found, []);
    }
}
