//! The dataplane against the real kernel, in network namespaces.

mod lab;

