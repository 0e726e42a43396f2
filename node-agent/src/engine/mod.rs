//! The node's pool of addresses: who holds which, and the EC2 calls that keep enough of them at hand.
//!
//! [`Pool`] is the handle that the rest of the agent uses. Behind it a state machine without I/O decides
//! ([`machine::Machine`]), and a task carries its effects out. Nothing here plumbs a pod or talks to Kubernetes.

mod adopted;
mod clock;
mod config;
mod error;
pub(crate) mod instance_type;
pub mod journal;
pub mod machine;
mod pool;
mod port;
mod run;
mod start;
mod view;

pub use clock::Clock;
pub use config::EffectiveConfig;
pub use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
pub use error::{AcquireError, Shortage};
pub use instance_type::Table;
pub use pool::Pool;
pub use port::{HostEni, HostPicture, HostPod, HostView, Kernel, KernelError};
pub use run::{Ec2Observer, Hands};
pub use start::{Engine, EngineConfig, StartError, hands, start, start_with};
pub use view::{
    ActionView, CallCounts, CapacityView, Ec2ErrorView, EniState, EniView, InstanceView, IntentView, Notice, Phase,
    PoolSnapshot, WaitingView,
};
