//! A snapshot for the tests of everything that reads one: an m5.large with two ENIs and three pods. And the flags' wishes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use enipool_pool::Timestamp;
use enipool_pool::ledger::{AddressState, AddressView, AttachmentKey, Counts, PodRef};

use super::wishes::{HostWishes, Wishes};
use crate::dataplane::{Randomization, Snat};
use crate::engine::{CapacityView, EffectiveConfig, EniState, EniView, Phase, PoolSnapshot};

/// 2023-11-14T22:13:20Z.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// What the agent's flags ask for where none is given.
pub(crate) fn flags() -> Wishes {
    Wishes {
        engine: EffectiveConfig::default(),
        host: HostWishes { snat: Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() }, mtu: 9001 },
        class_missing: false,
        problems: Vec::new(),
    }
}

fn pod(name: &str, address: Ipv4Addr) -> AddressView {
    let key = AttachmentKey::new("enipool", format!("container-{name}"), "eth0");
    let pod = PodRef { namespace: "default".into(), name: name.into(), uid: "".into() };
    AddressView { address, prefix: None, state: AddressState::Assigned { key, pod, since: NOW } }
}

/// 10.0.1.11 and 10.0.1.12 belong to pods that were adopted from the kernel.
pub(crate) fn with_adopted_pods(mut snapshot: PoolSnapshot) -> PoolSnapshot {
    for (view, host_ifname) in snapshot.enis[1].addresses[1..].iter_mut().zip(["eni0d7763386da", "enideadbeef012"]) {
        let key = AttachmentKey::new("", "kernel", host_ifname);
        view.state = AddressState::Assigned { key, pod: PodRef::default(), since: NOW };
    }
    snapshot
}

fn free(address: Ipv4Addr) -> AddressView {
    AddressView { address, prefix: None, state: AddressState::Free }
}

fn eni(device_index: u8, addresses: Vec<AddressView>) -> EniView {
    let total = u32::try_from(addresses.len()).unwrap();
    let assigned = addresses.iter().filter(|view| matches!(view.state, AddressState::Assigned { .. })).count();
    EniView {
        id: format!("eni-{device_index}").parse().unwrap(),
        mac: format!("0a:00:00:00:00:0{device_index}").parse().unwrap(),
        device_index: Some(device_index.into()),
        subnet: "subnet-1".parse().unwrap(),
        subnet_cidr: None,
        primary_ip: Ipv4Addr::new(10, 0, device_index, 4),
        state: EniState::Ready,
        unmanaged_because: None,
        prefixes: Vec::new(),
        addresses,
        counts: Counts { total, assigned: u32::try_from(assigned).unwrap(), cooling: 0, withdrawn: 0 },
        gives: true,
    }
}

/// Serving, two of five addresses free.
pub(crate) fn snapshot() -> PoolSnapshot {
    let ip = |device, host| Ipv4Addr::new(10, 0, device, host);
    let enis = vec![
        eni(0, vec![pod("web-1", ip(0, 10)), pod("web-2", ip(0, 11))]),
        eni(1, vec![pod("db-0", ip(1, 10)), free(ip(1, 11)), free(ip(1, 12))]),
    ];
    PoolSnapshot {
        at: NOW,
        generation: 7,
        phase: Phase::Serving,
        instance: None,
        capacity: Some(CapacityView { enis: 3, slots_per_eni: 9, addresses: 27, max_pods: 29 }),
        counts: Counts { total: 5, assigned: 3, cooling: 0, withdrawn: 0 },
        enis,
        strays: Vec::new(),
        waiting: Vec::new(),
        intents: Vec::new(),
        in_progress: Vec::new(),
        shortage: None,
        shortage_detail: None,
        shortage_ends: None,
        target: 5,
        decision: "as planned".into(),
        last_ec2_error: None,
        calls: std::collections::BTreeMap::new(),
        config: Arc::new(EffectiveConfig::default()),
        notices: Vec::new(),
    }
}
