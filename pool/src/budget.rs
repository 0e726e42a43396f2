//! The EC2 budget: one token bucket per action, and how it adapts to throttling.
