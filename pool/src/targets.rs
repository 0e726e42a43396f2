//! Warm targets and what they mean.
