//! What both daemons, operator and node agent, need at their rim: arguments, logs, the admin server, readiness, memory
//! and an orderly end.
//!
//! It knows neither Kubernetes nor AWS nor addresses, and decides nothing.

pub mod admin;
pub mod arguments;
pub mod exposition;
mod hourly;
pub mod logging;
pub mod memory;
pub mod readiness;
pub mod shutdown;

pub use admin::{Access, AdminServer, Answer, Request};
pub use exposition::OlderType;
pub use hourly::Bounds;
pub use logging::{LogFile, LogFormat, LogGuard, LogOptions};
pub use readiness::{Gate, Readiness};
pub use shutdown::Shutdown;
