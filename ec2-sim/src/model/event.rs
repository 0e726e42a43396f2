//! What has become effective in the simulated region: for those who must follow it, such as a fabric that plugs real
//! interfaces. Calls that are still under way show in no event.

use enipool_pool::ec2::InstanceState;
use enipool_pool::{EniId, InstanceId, MacAddress};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The interface is in the instance now.
    EniAttached {
        eni: EniId,
        instance: InstanceId,
        mac: MacAddress,
        device_index: u32,
    },
    /// The interface has left the instance.
    EniDetached {
        eni: EniId,
        instance: InstanceId,
        mac: MacAddress,
        device_index: u32,
    },
    /// Secondary addresses or prefixes of the interface have changed; they work (or no longer work) from now on.
    AddressesChanged {
        eni: EniId,
    },
    /// The interface exists no more.
    EniDeleted {
        eni: EniId,
    },
    InstanceStateChanged {
        instance: InstanceId,
        state: InstanceState,
    },
}
