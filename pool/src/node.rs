//! The node planner: from a picture of one node to what should be done next so that it holds what it should.
//!
//! [`plan`] is a pure function; the agent calls it for its node whenever something changed or [`Plan::wake_at`] is
//! reached, and carries the actions out. Everything needed is asked for at once: actions of one plan do not depend on
//! each other and may run in parallel. Nothing here knows pods by name, journals or EC2 errors' wording.

mod action;
mod snapshot;

pub use action::{Action, Hold, HoldReason, Plan, Planned, Purpose};
pub use snapshot::{
    AllocationView, Counts, Creating, EniPhase, EniRole, EniView, PrefixView, Snapshot, SubnetView, Usage,
};
