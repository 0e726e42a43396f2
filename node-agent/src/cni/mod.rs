//! The CNI server: the verbs of the specification over a unix socket, and the configuration that points runtimes here.
//!
//! [`Server`] speaks the socket's protocol and bounds what runs at once; [`Verbs`] carries a call out with the pool and the
//! dataplane behind two small ports. Nothing here calls EC2, IMDS or the API server, lists links or decides which address a
//! pod gets: on the path of an ADD there is the ledger, the kernel and this module.

mod adapters;
mod answer;
pub mod conflist;
mod delete;
mod drain;
mod flights;
mod observer;
mod ports;
mod server;
#[cfg(test)]
mod tests;
mod verbs;
mod verify;

pub use observer::{Finished, Observer, Phases, Unobserved};
pub use ports::{Addresses, Availability, PodLinks};
pub use server::{Server, ServerConfig};
pub use verbs::{Verbs, VerbsConfig};
