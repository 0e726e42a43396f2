//! The operator: one ENIPool per node, and the allocations for all of them.
