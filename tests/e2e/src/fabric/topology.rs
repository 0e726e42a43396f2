//! What a run consists of before any node exists: the router, the control plane's place, the internet, and their links.

use enipool_pool::SubnetCidr;
use ipnet::Ipv4Net;

use super::error::FabricError;
use super::names::{
    CONTROL_LINK, IMDS, INTERNET_GATEWAY, INTERNET_HOST, INTERNET_LINK, INTERNET_PREFIX_LEN, Place, RunId, Slot,
    host_link,
};
use super::netns::{Netns, host_ip};
use super::plan::{await_link, filter_base};

/// The namespaces of a run that are not nodes.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) router: Netns,
    pub(super) control: Netns,
    pub(super) internet: Netns,
}

/// Kernel parameters of a namespace that forwards: whatever comes is checked by the filter, not by the kernel's guess
/// at return paths, and nobody is told of shorter ways.
const FORWARDING: &[&str] = &[
    "net/ipv4/ip_forward=1",
    "net/ipv4/conf/all/rp_filter=0",
    "net/ipv4/conf/default/rp_filter=0",
    "net/ipv4/conf/all/send_redirects=0",
    "net/ipv4/conf/default/send_redirects=0",
    "net/ipv6/conf/all/disable_ipv6=1",
    "net/ipv6/conf/default/disable_ipv6=1",
];

/// The router answers for every address that it can reach by another link: a VPC knows all its addresses.
const ANSWERING_ARP: &[&str] = &["net/ipv4/conf/default/proxy_arp=1"];

/// Builds the namespaces of `run`, which has claimed `slot`.
pub(super) async fn build(
    run: &RunId,
    slot: Slot,
    vpc: &[Ipv4Net],
    subnets: &[SubnetCidr],
) -> Result<Base, FabricError> {
    let names = [Place::Router, Place::Control, Place::Internet];
    host_ip(&names.map(|place| format!("netns add {}", place.netns_name(run)))).await?;
    let [router, control, internet] = names.map(|place| Netns::new(place.path(run)));
    for netns in [&router, &control] {
        netns.sysctl(FORWARDING).await?;
    }
    // Before its links are made: this is their default.
    router.sysctl(ANSWERING_ARP).await?;
    internet.sysctl(&["net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1"]).await?;

    router.ip(&router_lines(slot, vpc, subnets, &control, &internet)).await?;
    router.nft(filter_base()).await?;
    let link = host_link(run);
    host_ip(&[
        format!("link add {link} mtu 9001 type veth peer name host0 mtu 9001 netns {}", control.path().display()),
        format!("addr add {}/30 dev {link}", slot.host()),
        format!("link set {link} up"),
    ])
    .await?;
    control.ip(&control_lines(slot)).await?;
    internet
        .ip(&[
            "link set lo up".into(),
            format!("addr add {INTERNET_HOST}/{INTERNET_PREFIX_LEN} dev eth0"),
            "link set eth0 up".into(),
            format!("route add default via {INTERNET_GATEWAY}"),
            await_link("eth0"),
        ])
        .await?;
    // The ends that came up first.
    router.ip(&[CONTROL_LINK, INTERNET_LINK].map(await_link)).await?;
    host_ip(&[await_link(&link)]).await?;
    Ok(Base { router, control, internet })
}

fn router_lines(slot: Slot, vpc: &[Ipv4Net], subnets: &[SubnetCidr], control: &Netns, internet: &Netns) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".into(),
        link_line(CONTROL_LINK, 9001, "vpc0", control),
        // What leaves the VPC for the internet is cut to 1500 bytes there too.
        link_line(INTERNET_LINK, 1500, "eth0", internet),
        format!("addr add {}/30 dev {CONTROL_LINK}", slot.router()),
        format!("addr add {INTERNET_GATEWAY}/{INTERNET_PREFIX_LEN} dev {INTERNET_LINK}"),
        format!("link set {CONTROL_LINK} up"),
        format!("link set {INTERNET_LINK} up"),
        format!("route add {} via {}", slot.control_net(), slot.control_to_router()),
        format!("addr add {IMDS}/32 dev lo"),
    ];
    lines.extend(subnets.iter().map(|subnet| format!("addr add {}/32 dev lo", subnet.gateway())));
    // An address that no interface owns swallows what is sent to it, without a word.
    lines.extend(vpc.iter().map(|cidr| format!("route add blackhole {cidr}")));
    lines
}

fn control_lines(slot: Slot) -> Vec<String> {
    vec![
        "link set lo up".into(),
        format!("addr add {}/30 dev host0", slot.control()),
        format!("addr add {}/30 dev vpc0", slot.control_to_router()),
        "link set host0 up".into(),
        "link set vpc0 up".into(),
        // One address for all: what the API server advertises is also what nodes see it come from.
        format!("route add default via {} src {}", slot.router(), slot.control()),
        await_link("host0"),
        await_link("vpc0"),
    ]
}

fn link_line(link: &str, mtu: u32, peer: &str, netns: &Netns) -> String {
    format!("link add {link} mtu {mtu} type veth peer name {peer} mtu {mtu} netns {}", netns.path().display())
}
