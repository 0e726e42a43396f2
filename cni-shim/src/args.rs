//! `CNI_ARGS`: what Kubernetes tells the plugin about the pod.

use crate::error::{CniError, Code};

/// The pod that a sandbox belongs to, as the runtime names it. Callers other than Kubernetes leave all of it empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`. Keys that we do not know are left alone, whether or not `IgnoreUnknown` is set:
    /// the next Kubernetes may send more.
    ///
    /// # Errors
    /// Code 4 when a part has no `=`.
    pub fn parse(args: &str) -> Result<Self, CniError> {
        let mut pod = Self::default();
        for part in args.split(';').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS: {part:?} is not KEY=VALUE"))
                    .details("CNI_ARGS must be KEY=VALUE pairs separated by ';'")
            })?;
            let field = match key {
                "K8S_POD_NAMESPACE" => &mut pod.namespace,
                "K8S_POD_NAME" => &mut pod.name,
                "K8S_POD_UID" => &mut pod.uid,
                _ => continue,
            };
            value.clone_into(field);
        }
        Ok(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_read_from_the_arguments_of_kubernetes() {
        let pod = PodArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u=1",
        )
        .unwrap();
        assert_eq!(pod, PodArgs { namespace: "default".into(), name: "web-0".into(), uid: "u=1".into() });
    }

    #[test]
    fn no_arguments_at_all_are_no_error() {
        assert_eq!(PodArgs::parse(""), Ok(PodArgs::default()));
        assert_eq!(PodArgs::parse(";"), Ok(PodArgs::default()));
    }

    #[test]
    fn a_part_without_an_equals_sign_is_named() {
        let error = PodArgs::parse("K8S_POD_NAME=a;oops").unwrap_err();
        assert_eq!(error.code, 4);
        assert!(error.msg.contains("oops"));
    }
}
