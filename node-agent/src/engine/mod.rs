//! The pool of this node: ledger, journal, planner and EC2 executor behind one handle.
