//! Between the engine and the API server: takes people's and the operator's wishes from the node's ENIPool and its class
//! to the engine, and the engine's picture into the ENIPool's status.
//!
//! Nothing here decides what the pool does, and nothing in the pool waits for it: with the API server away the engine goes
//! on with the last it was told. [`presence`], [`report`] and [`wishes`] are pure; [`intake`] and [`writer`] do the talking;
//! [`kept`] remembers what was asked for until the next start.

#[cfg(test)]
pub(crate) mod fixture;
pub mod intake;
pub mod kept;
pub mod presence;
pub mod report;
pub mod watches;
pub mod wishes;
pub mod writer;
