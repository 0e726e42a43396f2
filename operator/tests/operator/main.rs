//! The operator's loops, each on its own, against an API server that records and the simulated EC2.

mod enis;
mod fake_api;
mod planning;
