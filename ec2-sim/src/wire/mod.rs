//! The EC2 Query protocol: form-encoded requests in, XML answers out.

mod answer;
mod decode;
mod describe;
pub mod query;
mod xml;

pub use answer::{error_answer, success_answer};
pub use decode::decode;
