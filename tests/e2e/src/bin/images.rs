//! `make images`: writes the container images as archives for `ctr images import`.

use std::{env, path::Path};

use anyhow::{Context, Result};
use enipool_e2e::images::{self, Binaries, Set};

fn main() -> Result<()> {
    let out = env::args().nth(1).context("usage: images FOLDER")?;
    for archive in images::build(&Binaries::beside_this_program()?, Set::WithProduct, Path::new(&out))? {
        let size = archive.metadata().with_context(|| format!("asking for {}", archive.display()))?.len();
        println!("{} ({} MB)", archive.display(), size.div_ceil(1_000_000));
    }
    Ok(())
}
