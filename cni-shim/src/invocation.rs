//! One call of the plugin as the runtime makes it: the verb and the `CNI_*` environment.

use serde::{Deserialize, Serialize};

use crate::error::{CniError, Code};

/// A verb of the specification (`CNI_COMMAND`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Whether the verb speaks of one interface of one container.
    fn names_a_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// The environment of one call, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub verb: Verb,
    pub container_id: String,
    /// Path of the network namespace. Empty on a DEL after the namespace is gone.
    pub netns: String,
    pub ifname: String,
    /// `CNI_ARGS`, unread.
    pub args: String,
}

/// `IFNAMSIZ` of the kernel, less the final zero byte.
const MAX_IFNAME: usize = 15;

impl Invocation {
    /// Reads the environment through `var`, which yields a variable's value, `None` when it is not set, and `Err` when it
    /// is not UTF-8.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn read(var: impl Fn(&str) -> Result<Option<String>, ()>) -> Result<Self, CniError> {
        let get = |name: &str| match var(name) {
            Ok(value) => Ok(value.unwrap_or_default()),
            Err(()) => Err(invalid(name, "is not valid UTF-8")),
        };
        let command = get("CNI_COMMAND")?;
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == command).ok_or_else(|| {
            let what = if command.is_empty() { "is not set".into() } else { format!("{command:?} is unknown") };
            invalid("CNI_COMMAND", &what).details(
                "this is a CNI plugin: a container runtime starts it with CNI_COMMAND set to ADD, DEL, CHECK, GC, STATUS or \
                 VERSION and the network configuration on standard input",
            )
        })?;
        let call = Self {
            verb,
            container_id: get("CNI_CONTAINERID")?,
            netns: get("CNI_NETNS")?,
            ifname: get("CNI_IFNAME")?,
            args: get("CNI_ARGS")?,
        };
        if verb.names_a_container() {
            check_name("CNI_CONTAINERID", &call.container_id)?;
            check_ifname(&call.ifname)?;
        }
        if matches!(verb, Verb::Add | Verb::Check) && call.netns.is_empty() {
            return Err(invalid("CNI_NETNS", "is not set")
                .details("ADD and CHECK need the path of the container's network namespace"));
        }
        Ok(call)
    }
}

fn invalid(name: &str, what: &str) -> CniError {
    CniError::new(Code::InvalidEnvironment, format!("environment variable {name} {what}"))
}

/// Whether `text` starts with a letter or digit and goes on with those and `_.-` (the specification's rule for container
/// ids and network names).
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_name(variable: &str, value: &str) -> Result<(), CniError> {
    match value {
        "" => Err(invalid(variable, "is not set")),
        _ if is_name(value) => Ok(()),
        _ => Err(invalid(variable, &format!("{value:?} is not a valid id"))
            .details("it must start with a letter or digit and hold only those and '_', '.', '-'")),
    }
}

fn check_ifname(value: &str) -> Result<(), CniError> {
    let problem = match value {
        "" => "is not set".to_owned(),
        "." | ".." => format!("{value:?} is not a valid interface name"),
        _ if value.len() > MAX_IFNAME => format!("{value:?} is longer than {MAX_IFNAME} bytes"),
        _ if value.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace()) => {
            format!("{value:?} holds a slash, a colon or white space")
        }
        _ => return Ok(()),
    };
    Err(invalid("CNI_IFNAME", &problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Invocation, CniError> {
        Invocation::read(|name| Ok(vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())))
    }

    const ADD: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/a"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn a_whole_environment_is_read() {
        let call = read(&ADD).unwrap();
        assert_eq!((call.verb, call.container_id.as_str(), call.ifname.as_str()), (Verb::Add, "c1", "eth0"));
    }

    #[test]
    fn each_missing_variable_is_named() {
        for missing in 0..ADD.len() {
            let mut vars = ADD.to_vec();
            let (name, _) = vars.remove(missing);
            let error = read(&vars).unwrap_err();
            assert_eq!(error.code, 4);
            assert!(error.msg.contains(name), "{error}");
        }
    }

    #[test]
    fn a_del_may_come_without_a_namespace() {
        let call = read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]).unwrap();
        assert!(call.netns.is_empty());
    }

    #[test]
    fn gc_status_and_version_need_no_container() {
        for verb in ["GC", "STATUS", "VERSION"] {
            assert!(read(&[("CNI_COMMAND", verb)]).is_ok(), "{verb}");
        }
    }

    #[test]
    fn an_unknown_verb_is_refused() {
        assert_eq!(read(&[("CNI_COMMAND", "UPDATE")]).unwrap_err().code, 4);
    }

    #[test]
    fn ids_and_interface_names_that_would_leave_their_place_are_refused() {
        for (variable, value) in [
            ("CNI_CONTAINERID", "../etc"),
            ("CNI_CONTAINERID", "-rf"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_IFNAME", "a b"),
        ] {
            let vars: Vec<_> = ADD.iter().map(|&(k, v)| if k == variable { (k, value) } else { (k, v) }).collect();
            assert_eq!(read(&vars).unwrap_err().code, 4, "{variable}={value}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_an_error_of_the_environment() {
        let error = Invocation::read(|name| if name == "CNI_COMMAND" { Err(()) } else { Ok(None) }).unwrap_err();
        assert_eq!(error.code, 4);
    }
}
