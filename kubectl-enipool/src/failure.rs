//! What can go wrong, each with the next step for the person at the terminal.

use std::error::Error;
use std::time::Duration;

use kube::core::Status;

use crate::words::one_line;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No kubeconfig, or one that names no usable cluster.
    #[error("no cluster to ask: {0}")]
    Kubeconfig(String),
    /// The credentials of the kubeconfig could not be used.
    #[error("the credentials of the kubeconfig cannot be used: {0}")]
    Credentials(String),
    #[error("no answer to {question} from {server} within {limit:?}")]
    Timeout { question: String, server: String, limit: Duration },
    #[error("cannot reach the API server {server}: {why}")]
    Unreachable { server: String, why: String },
    /// The API server does not know who asks.
    #[error("the API server {server} does not accept these credentials: {message}")]
    Unauthorized { server: String, message: String },
    /// It knows, and does not allow it.
    #[error("not allowed to {question}: {message}")]
    Forbidden { question: String, message: String },
    /// It does not know the API: the CRDs are not there.
    #[error("{server} does not know ENIPools: enipool is not installed in this cluster")]
    NotInstalled { server: String },
    #[error("there is no pod {name} in namespace {namespace}")]
    NoSuchPod {
        namespace: String,
        name: String,
        /// Namespaces that have a pod of this name.
        elsewhere: Vec<String>,
    },
    #[error("there is no ENIPool {0}")]
    NoSuchPool(String),
    /// An object that was asked for is not there; for questions that have no failure of their own.
    #[error("not found: {0}")]
    NotFound(String),
    #[error("the API server answered {question} with an error: {message}")]
    Refused { question: String, message: String },
    /// An answer that this version cannot read.
    #[error("the answer to {question} cannot be read: {why}")]
    Unreadable { question: String, why: String },
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// What `error` means as the answer of `server` to `question`.
    pub fn of(error: kube::Error, question: &str, server: &str) -> Self {
        let question = question.to_owned();
        let server = server.to_owned();
        match error {
            kube::Error::Api(status) => Self::answered(&status, question, server),
            kube::Error::SerdeError(error) => Self::Unreadable { question, why: error.to_string() },
            kube::Error::Auth(error) => Self::Credentials(chain(&error)),
            other => Self::Unreachable { server, why: chain(&other) },
        }
    }

    fn answered(status: &Status, question: String, server: String) -> Self {
        let message = one_line(&status.message);
        match status.code {
            401 => Self::Unauthorized { server, message },
            403 => Self::Forbidden { question, message },
            // An object that is missing is named in the details; an API that is missing has no such answer.
            404 if status.details.is_some() => Self::NotFound(question),
            404 => Self::NotInstalled { server },
            code => Self::Refused { question, message: format!("{message} (status {code})") },
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> String {
        match self {
            Self::Kubeconfig(_) => {
                "Name a kubeconfig with --kubeconfig or $KUBECONFIG and a context of it with --context; \
                `kubectl config get-contexts` lists them."
                    .into()
            }
            Self::Credentials(_) => {
                "Check that `kubectl get --raw /readyz` works with the same --kubeconfig and --context.".into()
            }
            Self::Timeout { .. } => {
                "Check that `kubectl get --raw /readyz` answers; if it is only slow, give it more time \
                with --request-timeout 1m."
                    .into()
            }
            Self::Unreachable { .. } => {
                "Check the address, the network path to it (VPN, proxy) and the context: `kubectl \
                config view --minify` shows what is used."
                    .into()
            }
            Self::Unauthorized { .. } => "Log in again, or choose another context with --context.".into(),
            Self::Forbidden { .. } => "Ask for a role that may get and list pods, nodes, events, and enipools and \
                enipoolclasses of the group enipool.dev."
                .into(),
            Self::NotInstalled { .. } => {
                "Check the context (`kubectl config current-context`); to install enipool, see its \
                Helm chart: helm install enipool deploy/helm/enipool -n kube-system."
                    .into()
            }
            Self::NoSuchPod { namespace, name, elsewhere } => match elsewhere.first() {
                Some(other) if elsewhere.len() == 1 => {
                    format!("Namespace {other} has one: kubectl enipool why {name} -n {other}")
                }
                Some(_) => format!("Name the namespace with -n; pods of this name are in {}.", elsewhere.join(", ")),
                None => format!(
                    "`kubectl get pods -n {namespace}` lists the pods there. A pod that a controller replaced has a new name."
                ),
            },
            Self::NoSuchPool(node) => format!(
                "`kubectl get enipools` lists those there are. If the node exists (`kubectl get node {node}`), the operator \
                 has not made its ENIPool: `kubectl get pods -A | grep enipool-operator` shows whether it runs."
            ),
            Self::NotFound(_) => "It may have been deleted in the meantime: ask again.".into(),
            Self::Refused { .. } => {
                "If it is passing (429, 5xx), ask again; otherwise the text above names what is wrong.".into()
            }
            Self::Unreadable { .. } => {
                "This plugin may be older than the cluster's CRDs: use the release that the chart came with.".into()
            }
            Self::Output(_) => "Check the terminal or the file that the answer goes to.".into(),
        }
    }
}

/// An error with its causes, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = one_line(&cause.to_string());
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn answered(code: u16, details: bool) -> Failure {
        let mut status = Status::failure("no\nsuch thing", "NotFound").with_code(code);
        if details {
            status = status.with_details(StatusDetails {
                name: "a".into(),
                group: "enipool.dev".into(),
                kind: "enipools".into(),
                uid: String::new(),
                causes: Vec::new(),
                retry_after_seconds: 0,
            });
        }
        Failure::of(kube::Error::Api(status.boxed()), "get enipool a", "https://x")
    }

    #[test]
    fn a_missing_object_and_a_missing_api_are_told_apart() {
        assert!(matches!(answered(404, true), Failure::NotFound(_)));
        assert!(matches!(answered(404, false), Failure::NotInstalled { .. }));
    }

    #[test]
    fn the_text_says_what_was_asked_and_what_the_server_said_on_one_line() {
        let text = answered(403, false).to_string();
        assert_eq!(text, "not allowed to get enipool a: no such thing");
        assert!(answered(500, false).to_string().contains("status 500"));
    }

    #[test]
    fn a_pod_that_lives_elsewhere_is_pointed_at() {
        let failure = |elsewhere: &[&str]| {
            let elsewhere = elsewhere.iter().map(|&namespace| namespace.to_owned()).collect();
            Failure::NoSuchPod { namespace: "default".into(), name: "web".into(), elsewhere }.next_step()
        };
        assert!(failure(&["shop"]).contains("kubectl enipool why web -n shop"));
        assert!(failure(&["a", "b"]).contains("a, b"));
        assert!(failure(&[]).contains("kubectl get pods -n default"));
    }
}
