//! `kubectl enipool`: what the pool of each node holds, and why a pod waits for its address.
//!
//! It reads the API server and nothing else: no EC2, no node, no write. [`top`] and [`why`] turn objects into text and JSON
//! and are pure, time included; [`cluster`] does the asking, each call with a limit; [`failure`] says what went wrong and
//! what to do next.

pub mod args;
pub mod cluster;
pub mod command;
pub mod failure;
pub mod table;
pub mod top;
pub mod why;
pub mod words;
