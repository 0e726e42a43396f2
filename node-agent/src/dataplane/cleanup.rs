//! Taking everything of ours off the node again. Runs on the control thread.

use nix::libc;

use super::desired::is_our_rule;
use super::found::FoundLink;
use super::host::Host;
use super::layout::{self, ENI_MARK_MASK, POD_TABLE, eni_table};
use super::netlink::address::{self, LinkAddress, SCOPE_GLOBAL};
use super::netlink::link::{self, Link};
use super::netlink::route::{MAIN, RouteAsFound};
use super::netlink::{Batch, route, rule};
use super::nft;
use super::{DataplaneError, Report};

impl Host {
    /// Removes every object of ours and puts back the settings that were found. Tries everything; what fails is in the
    /// report. Pods lose their network.
    pub(super) fn cleanup(&mut self) -> Report {
        let mut report = Report::default();
        self.state = None;
        self.forget_table();
        self.note(&mut report, "nftables table ip enipool", Self::remove_table);
        self.note(&mut report, "rules", Self::remove_rules);
        self.note(&mut report, "pod interfaces", Self::remove_pod_links);
        self.note(&mut report, "routes", Self::remove_routes);
        self.note(&mut report, "settings as found", Self::put_back);
        report
    }

    fn note(&mut self, report: &mut Report, what: &str, step: fn(&mut Self) -> Result<Vec<String>, DataplaneError>) {
        match step(self) {
            Ok(done) => report.removed.extend(done),
            Err(error) => report.left.push(format!("{what}: {error}")),
        }
    }

    fn remove_table(&mut self) -> Result<Vec<String>, DataplaneError> {
        if !nft::present(&mut self.nftables)? {
            return Ok(Vec::new());
        }
        nft::remove(&mut self.nftables)?;
        Ok(vec![format!("nftables table ip {}", layout::NFT_TABLE)])
    }

    fn remove_rules(&mut self) -> Result<Vec<String>, DataplaneError> {
        let rules: Vec<_> = rule::all(&mut self.netlink)?.into_iter().filter(is_our_rule).collect();
        let mut batch = Batch::new();
        for rule in &rules {
            rule::push_delete(&mut batch, *rule);
        }
        self.netlink.execute_unless("remove rules", batch, &[libc::ENOENT])?;
        Ok(rules.iter().map(|rule| format!("rule {rule}")).collect())
    }

    fn remove_pod_links(&mut self) -> Result<Vec<String>, DataplaneError> {
        let routed = route::in_table(&mut self.netlink, POD_TABLE, None)?;
        let ours = |link: &Link| {
            link.kind == "veth"
                && (link.mac.is_some_and(layout::is_host_mac) || routed.iter().any(|route| route.link == link.index))
        };
        let links: Vec<Link> = link::all(&mut self.netlink)?.into_iter().filter(ours).collect();
        for (address, _) in self.pods.all() {
            self.pods.remove(address);
        }
        let mut batch = Batch::new();
        for link in &links {
            link::push_delete(&mut batch, link.index);
        }
        self.netlink.execute_unless("remove pod interfaces", batch, &[libc::ENODEV])?;
        Ok(links.iter().map(|link| format!("link {}", link.name)).collect())
    }

    fn remove_routes(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut removed = Vec::new();
        for table in std::iter::once(POD_TABLE).chain((1..=ENI_MARK_MASK).map(eni_table)) {
            let routes = route::in_table(&mut self.netlink, table, None)?;
            let mut batch = Batch::new();
            for route in &routes {
                route::push_delete(&mut batch, *route);
            }
            self.netlink.execute_unless("remove routes", batch, &[libc::ESRCH, libc::ENODEV])?;
            removed.extend(routes.iter().map(|route| format!("route to {} in table {table}", route.destination)));
        }
        Ok(removed)
    }

    fn put_back(&mut self) -> Result<Vec<String>, DataplaneError> {
        let found = self.found.found().clone();
        let mut removed = Vec::new();
        let links = link::all(&mut self.netlink)?;
        for (mac, as_found) in &found.links {
            let Some(link) = links.iter().find(|link| link.mac == Some(*mac)) else { continue };
            let addresses = address::of_link(&mut self.netlink, link.index)?;
            let mut batch = Batch::new();
            let done = push_as_found(&mut batch, link, &addresses, as_found);
            self.netlink.execute_unless("put back a link's settings", batch, &[libc::EADDRNOTAVAIL])?;
            removed.extend(done);
            removed.extend(self.put_back_routes(link, as_found)?);
        }
        if found.forwarding == Some(false) && self.sysctl.forwarding()? {
            self.sysctl.set_forwarding(false)?;
            removed.push("net.ipv4.ip_forward set back to 0".into());
        }
        self.found.forget()?;
        Ok(removed)
    }

    /// Those that did not come back with their addresses.
    fn put_back_routes(&mut self, link: &Link, found: &FoundLink) -> Result<Vec<String>, DataplaneError> {
        let present = route::as_found(&mut self.netlink, MAIN, link.index)?;
        let mut missing: Vec<&RouteAsFound> = found.routes.iter().filter(|route| !present.contains(route)).collect();
        // A gateway has to be reachable when the route via it comes: narrow scopes (large numbers) first.
        missing.sort_by_key(|route| std::cmp::Reverse(route.scope));
        let mut batch = Batch::new();
        for route in &missing {
            route::push_again(&mut batch, MAIN, link.index, route);
        }
        self.netlink.execute_unless("put back a link's routes", batch, &[libc::EEXIST])?;
        Ok(missing.iter().map(|route| format!("{} got its route {route} back", link.name)).collect())
    }
}

/// `addresses` are the link's own. Those of a primary ENI were never changed, and are recorded as none: left alone.
fn push_as_found(batch: &mut Batch, link: &Link, addresses: &[LinkAddress], found: &FoundLink) -> Vec<String> {
    let mut done = Vec::new();
    let name = &link.name;
    if !found.primary {
        // First what comes: with its last address a link would lose all routes over it, those of others too.
        for address in found.addresses.iter().filter(|address| !addresses.contains(&address.on_link(link.index))) {
            address::push_again(batch, link.index, address);
            done.push(format!("{name} got its address {} back", address.net));
        }
        let was = |address: &LinkAddress| found.addresses.iter().any(|found| found.on_link(link.index) == *address);
        for address in addresses.iter().filter(|address| address.scope == SCOPE_GLOBAL && !was(address)) {
            address::push_delete(batch, *address);
            done.push(format!("address {}/{} of {name}", address.address, address.prefix_len));
        }
    }
    if link.mtu != found.mtu {
        link::push_mtu(batch, link.index, found.mtu);
        done.push(format!("MTU of {name} set back to {}", found.mtu));
    }
    if let Some(value) = found.rp_filter.filter(|value| link.rp_filter != Some(*value)) {
        link::push_rp_filter(batch, link.index, value);
        done.push(format!("rp_filter of {name} set back to {value}"));
    }
    if link.up && !found.up {
        link::push_up(batch, link.index, false);
        done.push(format!("{name} set down again"));
    }
    done
}
