//! The Kubernetes API of enipool (group `enipool.dev`): `ENIPool`, one per node, and `ENIPoolClass`, the defaults of a
//! group of nodes; their enumerated reasons and conditions; and the step from these objects, which hold whatever the API
//! server let through, to the types of `enipool-pool`.
//!
//! No client and no effects here. The manifests in `crds/*.yaml` and in the chart are written by `crdgen` from these
//! types: what `kubectl explain` answers is the documentation of the fields below.

pub mod class;
pub mod condition;
pub mod convert;
pub mod enipool;
pub mod fixtures;
pub mod manifest;
pub mod settings;

pub use class::{
    ENIPoolClass, ENIPoolClassSpec, ENIPoolClassStatus, ResourceSelector, Snat, SnatMode, SubnetStatus, Tag,
};
pub use condition::{ConditionType, Reason};
pub use enipool::{
    AddressCounts, Allocation, Capacity, Counters, ENIPool, ENIPoolSpec, ENIPoolStatus, EniState, EniStatus,
    InstanceStatus, IntentStatus, LastEc2Error, Operations,
};
pub use settings::{Addressing, TargetFields};

/// API group of all types here.
pub const GROUP: &str = "enipool.dev";
/// Version that is served and stored.
pub const VERSION: &str = "v1alpha1";

/// The field manager under which the operator applies `spec.allocation` and the status of classes.
pub const OPERATOR_FIELD_MANAGER: &str = "enipool-operator";
/// The field manager under which an agent applies the status of its node's ENIPool.
pub const AGENT_FIELD_MANAGER: &str = "enipool-agent";
/// The finalizer that keeps an ENIPool until the ENIs of its node are gone.
pub const FINALIZER: &str = "enipool.dev/enis";
/// The class that nodes get when no other class matches.
pub const DEFAULT_CLASS: &str = "default";
