//! The planner against a toy EC2 that grants, refuses and takes its time.

mod fill;
mod limits;
mod operator;
mod properties;
mod slots;
pub(crate) mod toy;
mod traps;
