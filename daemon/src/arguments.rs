//! Flags and environment variables: one way to read them, and to say which of them is not understood.
//!
//! It knows no setting by name, and reads nothing but the command line and the environment.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};

/// Reads the process's arguments. A value that is not understood ends the process at once with exit code 2, naming the
/// flag and, if the value came from there, the environment variable.
pub fn parse<T: Parser>() -> T {
    try_parse(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// As [`parse`], from these words (the first is the program's name), and without ending the process.
pub fn try_parse<T: Parser>(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<T, clap::Error> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    T::try_parse_from(&words).map_err(|error| {
        let mut command = T::command();
        command.build();
        with_variables(error, &command, &words)
    })
}

/// Adds the environment variables of the arguments that the error is about: clap itself names only the flags, and who
/// set a variable in a manifest does not look for a flag.
fn with_variables(mut error: clap::Error, command: &Command, words: &[OsString]) -> clap::Error {
    let flags: Vec<String> = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => vec![flag.clone()],
        Some(ContextValue::Strings(flags)) => flags.clone(),
        _ => return error,
    };
    let missing = error.kind() == ErrorKind::MissingRequiredArgument;
    let tips: Vec<StyledStr> = flags
        .iter()
        .filter_map(|flag| variable_of(command, flag))
        .filter(|found| missing || (std::env::var_os(&found.variable).is_some() && !found.is_among(words)))
        .map(|Found { variable, .. }| {
            if missing {
                format!("it can also be set by the environment variable {variable}")
            } else {
                format!("the value comes from the environment variable {variable}")
            }
        })
        .map(StyledStr::from)
        .collect();
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// An argument with a variable.
struct Found {
    variable: String,
    flag: String,
}

impl Found {
    /// Whether the flag is on the command line, where it counts for more than the variable.
    fn is_among(&self, words: &[OsString]) -> bool {
        words.iter().filter_map(|word| word.to_str()).any(|word| word.split('=').next() == Some(&self.flag))
    }
}

/// The argument that clap's errors call `shown`, of the command or one below it.
fn variable_of(command: &Command, shown: &str) -> Option<Found> {
    let own = command.get_arguments().find(|argument| argument.to_string() == shown).and_then(|argument| {
        let variable = argument.get_env()?.to_string_lossy().into_owned();
        Some(Found { variable, flag: format!("--{}", argument.get_long().unwrap_or_default()) })
    });
    own.or_else(|| command.get_subcommands().find_map(|command| variable_of(command, shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Outer {
        #[command(subcommand)]
        inner: Inner,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Inner {
        Run {
            /// A variable that each test process has, with a value that is no number.
            #[arg(long, env = "PATH")]
            number: u32,
            #[arg(long, env = "ENIPOOL_NO_SUCH_VARIABLE")]
            name: String,
        },
    }

    fn refusal(words: &[&str]) -> String {
        try_parse::<Outer>(words).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_value_from_the_environment_is_told_with_the_variables_name() {
        let said = refusal(&["program", "run", "--name=a"]);
        assert!(said.contains("--number") && said.contains("environment variable PATH"), "{said}");
    }

    #[test]
    fn a_bad_value_of_a_flag_is_not_blamed_on_the_environment() {
        for words in [&["program", "run", "--name=a", "--number=many"][..], &["program", "run", "--number", "many"]] {
            let said = refusal(words);
            assert!(said.contains("--number") && !said.contains("PATH"), "{said}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_both_names() {
        let said = refusal(&["program", "run", "--number=1"]);
        assert!(said.contains("--name") && said.contains("ENIPOOL_NO_SUCH_VARIABLE"), "{said}");
    }
}
