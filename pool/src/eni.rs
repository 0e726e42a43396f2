//! The life of an ENI, from intent to gone, and what a restart does with each state.
