//! The node planner: what to do next so that a node holds what it should.
