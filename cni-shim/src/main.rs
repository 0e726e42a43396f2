//! The CNI plugin: hands each call of the container runtime to the agent of this node and prints the agent's answer.
//!
//! It decides nothing about addresses or links. What it settles itself is what must work without an agent: VERSION, bad
//! input, and a DEL while the agent is away, which it queues on disk.

mod plugin;

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let variable = |name: &str| match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(()),
    };
    let answer = plugin::run(variable, &mut io::stdin().lock());
    let mut text = answer.stdout;
    if !text.is_empty() {
        text.push('\n');
    }
    // Nobody is left to tell when the runtime has closed our standard output.
    let written = io::stdout().lock().write_all(text.as_bytes());
    if written.is_ok() { ExitCode::from(answer.exit) } else { ExitCode::FAILURE }
}
