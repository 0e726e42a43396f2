//! The planner against a toy EC2 that grants, refuses and takes its time.

mod fill;
mod properties;
mod toy;
mod traps;
