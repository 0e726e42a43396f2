//! The verbs over doubles of the pool and the kernel, and over a real socket.

mod add;
mod delete;
mod doubles;
mod socket;
mod verify;
