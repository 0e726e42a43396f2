//! What the simulated EC2 does, seen from outside: limits, subnets, tokens, life cycles, faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share is outside #[test] functions")]
#![allow(clippy::needless_pass_by_value, reason = "tests read better without ampersands")]

mod addresses;
mod calls;
mod life;
mod limits;
mod named;
mod tags;
mod tokens;
mod views;
mod world;
