//! EC2, IMDS and CloudWatch's custom metrics as they really behave: a seeded model on a virtual clock ([`Model`]), the port that the pool's code uses
//! ([`port::SimEc2`]), and a server for the wire protocols ([`server`]).
//!
//! Knows nothing of the pool but its port: it must judge the pool, so nothing here is convenient for it.

mod cloudwatch;
mod control;
pub mod imds;
pub mod model;
pub mod port;
pub mod server;
pub mod shared;
pub mod wire;

pub use model::{Event, FaultKind, FaultRule, Model, Request, Response, SimConfig, Timing};
pub use port::SimEc2;
pub use shared::SharedModel;
