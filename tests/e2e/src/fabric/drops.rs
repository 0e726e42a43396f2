//! What the router refused to forward, and whose it was.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use enipool_pool::InstanceId;
use serde_json::Value;

use super::error::FabricError;
use super::netns::Netns;
use super::plan::{Counter, counter};

/// Packets that the router dropped since the run began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    /// Per instance: packets whose source address the interface that sent them does not own.
    pub spoofed: BTreeMap<InstanceId, u64>,
    /// Per instance: packets to the internet from an address that has no public one.
    pub no_public_address: BTreeMap<InstanceId, u64>,
    /// Who forged what: the first 4096 different ones.
    pub offenders: Vec<Offender>,
}

/// Packets dropped because their interface does not own their source address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// The router's link: `e` and the tail of the ENI's id.
    pub link: String,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub packets: u64,
}

impl Drops {
    /// All forged packets of all nodes.
    pub fn spoofed_total(&self) -> u64 {
        self.spoofed.values().sum()
    }

    /// Reads the router's counters for these instances.
    pub(super) async fn read(router: &Netns, instances: &[InstanceId]) -> Result<Self, FabricError> {
        let text = router.exec(&["nft", "--json", "list", "table", "ip", "fabric"]).await?;
        Self::parse(&text, instances)
    }

    fn parse(text: &str, instances: &[InstanceId]) -> Result<Self, FabricError> {
        let unreadable = |what: &str| FabricError::Counters(what.to_owned());
        let table: Value = serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))?;
        let objects = table["nftables"].as_array().ok_or_else(|| unreadable("no list of objects"))?;

        let packets: BTreeMap<&str, u64> = objects
            .iter()
            .map(|object| &object["counter"])
            .filter_map(|counter| Some((counter["name"].as_str()?, counter["packets"].as_u64()?)))
            .collect();
        let of = |kind| -> BTreeMap<InstanceId, u64> {
            let count = |id: &InstanceId| Some((id.clone(), *packets.get(counter(kind, id).as_str())?));
            instances.iter().filter_map(count).collect()
        };

        let set = objects.iter().map(|object| &object["set"]).find(|set| set["name"] == "offenders");
        let elements = set.ok_or_else(|| unreadable("no set of offenders"))?["elem"].as_array();
        let offenders = elements.into_iter().flatten().map(|element| {
            offender(&element["elem"]).ok_or_else(|| unreadable(&format!("an offender looks like {element}")))
        });
        Ok(Self {
            spoofed: of(Counter::Spoofed),
            no_public_address: of(Counter::NoPublicAddress),
            offenders: offenders.collect::<Result<_, _>>()?,
        })
    }
}

fn offender(element: &Value) -> Option<Offender> {
    let parts = element["val"]["concat"].as_array()?;
    let [link, source, destination] = parts.as_slice() else { return None };
    Some(Offender {
        link: link.as_str()?.to_owned(),
        source: source.as_str()?.parse().ok()?,
        destination: destination.as_str()?.parse().ok()?,
        packets: element["counter"]["packets"].as_u64()?,
    })
}
