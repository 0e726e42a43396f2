//! What the plugin process and the agent share: the types of the CNI specification, the frames on the socket between
//! them, and the queue of deletions that wait on disk while the agent is away.
//!
//! Serde only, no async runtime: the plugin is started for every pod and must be small and quick to start. Decisions
//! about addresses and links are the agent's; nothing here makes any.

pub mod args;
pub mod config;
pub mod error;
pub mod frame;
pub mod invocation;
pub mod queue;
pub mod result;
pub mod version;

pub use config::{NetConf, PluginConf};
pub use error::{CniError, Code};
pub use frame::{Request, Response};
pub use invocation::{Invocation, Verb};
pub use queue::DelQueue;
pub use result::CniResult;
pub use version::SpecVersion;
