//! Puts the CNI plugin and the support script onto the host. Each file is renamed into place: a runtime that starts the
//! plugin at that moment finds the old one or the new one, never half of one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cni::conflist::PLUGIN;

/// The support script and its name, which people know from the AWS plugin.
pub(crate) const SUPPORT_SCRIPT: &[u8] = include_bytes!("../support/aws-cni-support.sh");
pub const SUPPORT_SCRIPT_NAME: &str = "aws-cni-support.sh";

/// Copies `plugin` and the support script into `folder`. Returns what was written.
///
/// # Errors
/// When the plugin cannot be read or the folder not be written; the error names the file.
pub fn install(plugin: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let code = fs::read(plugin).map_err(|error| named(plugin, &error))?;
    fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
    [(PLUGIN, code.as_slice()), (SUPPORT_SCRIPT_NAME, SUPPORT_SCRIPT)]
        .into_iter()
        .map(|(name, content)| {
            let path = folder.join(name);
            put(&path, content).map_err(|error| named(&path, &error))?;
            Ok(path)
        })
        .collect()
}

/// Removes what [`install`] wrote. What is not there is no error.
pub fn uninstall(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for name in [PLUGIN, SUPPORT_SCRIPT_NAME] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&path, &error)),
        }
    }
    Ok(removed)
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&fresh)?;
    // The mode of `open` is masked by the umask.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_install_replaces_the_first_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("source");
        let bin = folder.path().join("bin");
        for content in ["one", "two"] {
            fs::write(&plugin, content).unwrap();
            install(&plugin, &bin).unwrap();
        }
        assert_eq!(fs::read_to_string(bin.join(PLUGIN)).unwrap(), "two");
        assert_eq!(fs::metadata(bin.join(PLUGIN)).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
        assert_eq!(uninstall(&bin).unwrap().len(), 2);
        assert_eq!(uninstall(&bin).unwrap().len(), 0);
    }

    #[test]
    fn a_missing_plugin_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = install(&folder.path().join("nothing"), folder.path()).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
