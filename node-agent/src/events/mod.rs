//! Kubernetes events: what a person would want to know of this node's pool, on the pod that waits, on the ENIPool and on
//! the Node, each once.
//!
//! [`tell`] decides what is worth telling and how often; it is pure. [`publish`] brings that to the API server over a queue
//! with a bound: with the API server away events are lost, and nothing waits for them.

pub mod publish;
pub mod tell;
