//! Writes the CRD manifests of this repository; with `--check` it only says which are out of date. Run by `make generate`
//! and `make verify-generated` from the root of the repository; from elsewhere, that root is the last argument.

use std::io;
use std::path::PathBuf;

use enipool_crds::manifest;

fn main() -> io::Result<()> {
    let (flags, roots): (Vec<_>, Vec<_>) = std::env::args_os().skip(1).partition(|argument| argument == "--check");
    let root = roots.last().map_or_else(|| PathBuf::from("."), PathBuf::from);
    if flags.is_empty() {
        return manifest::write(&root);
    }
    match manifest::stale(&root)?.as_slice() {
        [] => Ok(()),
        stale => Err(io::Error::other(format!("out of date: {stale:?}: run `make generate`"))),
    }
}
