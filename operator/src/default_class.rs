//! The class `default`, from the file that the chart writes.
//!
//! The operator applies it and not the installer, so that one `kubectl apply -f` of everything works, although the class
//! is of a kind that the same manifest defines. What people have changed in the class by hand stays theirs.

use std::path::{Path, PathBuf};

use enipool_crds::{DEFAULT_CLASS, ENIPoolClass, ENIPoolClassSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::kubernetes::{CallError, call};

/// A manager of its own: the chart's word about the class is not the planner's.
const FIELD_MANAGER: &str = "enipool-default-class";

/// A file that holds no class.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("default class file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("default class file {} is not the spec of an ENIPoolClass: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
}

/// Reads the file. A field that the API does not have is an error: it is a typo.
pub fn read(path: &Path) -> Result<ENIPoolClassSpec, FileError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|why| FileError::Malformed { path: path.to_owned(), why })
}

fn parse(text: &str) -> Result<ENIPoolClassSpec, String> {
    let given: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let spec: ENIPoolClassSpec = serde_json::from_value(given.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&spec).map_err(|error| error.to_string())?;
    match given.as_object().and_then(|given| given.keys().find(|key| known.get(key.as_str()).is_none())) {
        // A field with an empty value is dropped on the way, and that is no typo.
        Some(unknown) if given.get(unknown).is_some_and(|value| !is_empty(value)) => {
            Err(format!("unknown field {unknown:?}"))
        }
        _ => Ok(spec),
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Object(fields) => fields.is_empty(),
        serde_json::Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Makes the class what the file says, but for what people have changed in it.
pub async fn apply(client: &Client, spec: &ENIPoolClassSpec) -> Result<(), CallError> {
    let classes: Api<ENIPoolClass> = Api::all(client.clone());
    let body = json!({
        "apiVersion": format!("{}/{}", enipool_crds::GROUP, enipool_crds::VERSION),
        "kind": "ENIPoolClass",
        "metadata": {"name": DEFAULT_CLASS},
        "spec": spec,
    });
    match call(classes.patch(DEFAULT_CLASS, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&body))).await {
        Ok(_) => Ok(()),
        Err(conflict @ CallError::Conflict(_)) => {
            tracing::warn!(
                why = %conflict.story(),
                "the class `default` was changed by hand and is left as it is; the chart's values have no effect on it"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_in_the_charts_values_is_refused_by_name() {
        assert_eq!(parse("warmENITarget: 2\n").unwrap().targets.warm_eni_target, Some(2));
        assert!(parse("{}\n").is_ok());
        assert!(parse("eniTags: {}\n").is_ok());
        assert!(parse("warmEniTarget: 2\n").unwrap_err().contains("warmEniTarget"));
        assert!(parse("warmENITarget: many\n").is_err());
    }
}
