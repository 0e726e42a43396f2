//! The fleet planner: allocations for all nodes from one snapshot.
