//! The messages between the CNI plugin and the agent, and the CNI types that both need.
