//! The dataplane against the real kernel, in network namespaces.

mod lab;
mod life;
mod routing;
mod scale;
mod traffic;
mod vpc;
