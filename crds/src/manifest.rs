//! The CRDs as YAML: one source for `crds/*.yaml` and for the chart.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{ENIPool, ENIPoolClass};

/// Folders of the repository that hold a copy, relative to its root.
pub const FOLDERS: [&str; 2] = ["crds", "deploy/helm/enipool/crds"];

const HEADER: &str = "# Generated from crds/src by `make generate`. Do not edit.\n";

/// File name and content of each CRD.
pub fn all() -> io::Result<[(&'static str, String); 2]> {
    Ok([("enipools.yaml", render(&ENIPool::crd())?), ("enipoolclasses.yaml", render(&ENIPoolClass::crd())?)])
}

/// Writes all CRDs into every folder that holds a copy.
pub fn write(root: &Path) -> io::Result<()> {
    for folder in FOLDERS {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)?;
        for (name, text) in all()? {
            std::fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}

/// The copies that are not what the types say, or not there.
pub fn stale(root: &Path) -> io::Result<Vec<PathBuf>> {
    let all = all()?;
    let copies =
        FOLDERS.iter().flat_map(|folder| all.iter().map(move |(name, text)| (root.join(folder).join(name), text)));
    Ok(copies
        .filter(|(file, text)| std::fs::read_to_string(file).ok().as_ref() != Some(*text))
        .map(|(file, _)| file)
        .collect())
}

/// Takes `nullable` out of the schema: an optional field may be left out, and the API server then drops an explicit null
/// as if it were not there. With it, `kubectl explain` lists a nameless value for every optional enumeration.
fn forget_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                if let Some(Value::Array(values)) = fields.get_mut("enum") {
                    values.retain(|value| !value.is_null());
                }
            }
            fields.values_mut().for_each(forget_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_null),
        _ => {}
    }
}

fn render(crd: &CustomResourceDefinition) -> io::Result<String> {
    let mut crd = serde_json::to_value(crd)?;
    forget_null(&mut crd);
    let yaml = serde_saphyr::to_string(&crd).map_err(io::Error::other)?;
    Ok(format!("{HEADER}{yaml}"))
}
