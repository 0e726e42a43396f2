//! The dataplane against the real kernel, in network namespaces.

mod lab;
mod life;
mod routing;
mod traffic;
mod vpc;
