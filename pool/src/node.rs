//! The node planner: from a picture of one node to what should be done next so that it holds what it should.
//!
//! [`plan()`] is a pure function; the agent calls it for its node whenever something changed or [`Plan::wake_at`] is
//! reached, and carries the actions out. Everything needed is asked for at once: actions of one plan do not depend on
//! each other and may run in parallel. Nothing here knows pods by name, journals or EC2 errors' wording.
//!
//! The arithmetic of the targets is in [`need()`], which the fleet planner shares. [`preference`] is the rule by which
//! the ledger hands addresses out: it and the planner pull in one direction.

mod action;
mod convert;
mod grow;
mod keep;
mod memory;
mod need;
mod picture;
mod plan;
mod prefer;
mod shrink;
mod snapshot;

pub use action::{Action, Hold, HoldReason, Plan, Planned, Purpose};
pub(crate) use memory::{Level, Peaks};
pub use memory::{PlannerMemory, RETURN_AFTER};
pub use need::{Holdings, Need, enis_for, need};
pub use plan::plan;
pub use prefer::{EniFit, Preference, SlotFit, preference};
pub use shrink::MIN_ENI_LIFETIME;
pub use snapshot::{
    AllocationView, Counts, Creating, EniPhase, EniRole, EniView, PrefixView, Snapshot, SubnetView, Usage,
};

#[cfg(test)]
pub(crate) mod tests;
