//! The operator's loops, each on its own, against an API server that records and the simulated EC2.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod enis;
mod fake_api;
mod planning;
