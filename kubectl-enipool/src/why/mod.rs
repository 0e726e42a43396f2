//! `kubectl enipool why`: follows one pod from its scheduling to its address and says where it stands. Pure: objects and
//! the time in, text or JSON out.
//!
//! [`facts`] is what was read, [`verdict`] what it means, [`advice`] what to do, [`story`] the facts in words, [`render`] the
//! page and the JSON.

pub mod advice;
pub mod facts;
pub mod render;
pub mod story;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use facts::{Answer, Facts};
pub use verdict::Verdict;
