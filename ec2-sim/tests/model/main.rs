//! What the simulated EC2 and CloudWatch do, seen from outside: limits, subnets, tokens, life cycles, faults, metrics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share is outside #[test] functions")]
#![allow(clippy::needless_pass_by_value, reason = "tests read better without ampersands")]

mod addresses;
mod calls;
mod cloudwatch;
mod life;
mod limits;
mod named;
mod tags;
mod tokens;
mod views;
mod world;
