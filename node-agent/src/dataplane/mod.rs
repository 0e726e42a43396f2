//! The kernel: links, routes, rules and the nftables table of this node.
