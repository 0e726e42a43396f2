//! The dataplane against the real kernel, in network namespaces.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "all of this file is tests")]

mod gone;
mod inspect;
mod lab;
mod life;
mod other_subnet;
mod routing;
mod scale;
mod traffic;
mod vpc;
