//! Wiring: starts every part of the agent and stops them in order.
