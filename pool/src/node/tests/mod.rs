//! The planner against a toy EC2 that grants, refuses and takes its time.

mod fill;
mod properties;
pub(crate) mod toy;
mod traps;
