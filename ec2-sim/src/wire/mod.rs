//! The EC2 Query protocol (form-encoded requests in, XML answers out), and CloudWatch's protocols.

mod answer;
pub mod cloudwatch;
mod decode;
mod describe;
pub mod query;
mod xml;

pub use answer::{error_answer, success_answer};
pub use decode::decode;
