//! Writes the CRD manifests of this repository. Run by `make generate` from the root of the repository, or with the root
//! as the only argument.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    enipool_crds::manifest::write(&root)
}
