//! Gives the kernel back the parts of our own program that only starting needed.
//!
//! A start runs through most of the program once (certificates, configuration, the SDK's resolvers), and every page that it
//! touched stays mapped, together with up to fifteen neighbours (the kernel's `fault_around_bytes`). On thousands of nodes
//! that is memory of the pods. Nothing here decides anything else about memory.

use std::io;
use std::path::Path;
use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::time::Duration;

use nix::sys::mman::{MmapAdvise, madvise};
use tokio_util::sync::CancellationToken;

/// From the start to the first time: by then a daemon has connected to everything.
const FIRST: Duration = Duration::from_secs(20);
/// Between two times: rare work (a certificate that changes, a full look) leaves pages behind, too.
const EVERY: Duration = Duration::from_secs(600);

/// A part of the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: usize,
    length: usize,
}

/// Gives pages back soon after the start and now and then, until `stop`.
pub async fn keep_small(stop: CancellationToken) {
    let mut pause = FIRST;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        match give_back_code() {
            Ok(bytes) => tracing::debug!(bytes, "gave the pages of the program back that are not in use"),
            Err(error) => tracing::debug!(%error, "cannot give pages of the program back"),
        }
        pause = EVERY;
    }
}

/// Unmaps the program's code from this process; what runs is mapped again, page by page, from the page cache. Returns how
/// many bytes were looked at.
///
/// # Errors
/// Without `/proc`, or when the kernel refuses.
pub fn give_back_code() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let program = std::fs::read_link("/proc/self/exe")?;
    let mut total = 0_usize;
    for range in code_of(&maps, &program) {
        let Some(start) = NonNull::new(with_exposed_provenance_mut(range.start)) else { continue };
        #[allow(unsafe_code, reason = "madvise has no safe form")]
        // SAFETY: the range is code of the program's file, mapped read-only: nothing of it lives only in memory, so
        // whoever touches it next finds the same bytes.
        unsafe {
            madvise(start, range.length, MmapAdvise::MADV_DONTNEED)?;
        }
        total = total.saturating_add(range.length);
    }
    Ok(total)
}

/// The executable mappings of `program`. Not its other read-only ones: they may hold relocated pointers, which are in no
/// file.
fn code_of(maps: &str, program: &Path) -> Vec<Range> {
    maps.lines()
        .filter_map(|line| {
            // "start-end perms offset device inode path", proc_pid_maps(5).
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            if fields.next()? != "r-xp" || fields.nth(3)? != program.to_str()? {
                return None;
            }
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            Some(Range { start, length: end.checked_sub(start)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f000013d000 r--p 00000000 fe:00 12202332                   /enipool-agent
7f000013d000-7f00011c7000 r-xp 0013d000 fe:00 12202332                   /enipool-agent
7f000175d000-7f000184e000 rw-p 0175c000 fe:00 12202332                   /enipool-agent
7f0002000000-7f0002001000 r-xp 00000000 fe:00 77                         /usr/lib/other.so
7f0003000000-7f0003002000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn only_the_programs_own_code_is_given_back() {
        let ranges = code_of(MAPS, Path::new("/enipool-agent"));
        assert_eq!(ranges, [Range { start: 0x7f00_0013_d000, length: 0x0108_a000 }]);
        assert_eq!(code_of(MAPS, Path::new("/enipool-operator")), []);
    }

    /// Kilobytes of this program's code that are mapped at present.
    fn resident_code() -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let mut ours = false;
        let mut total = 0;
        for line in smaps.lines() {
            if let Some(size) = line.strip_prefix("Rss:") {
                let size = size.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
                total += if ours { size } else { 0 };
            } else if line.split_ascii_whitespace().next().is_some_and(|first| !first.ends_with(':')) {
                ours = !code_of(line, &program).is_empty();
            }
        }
        total
    }

    #[test]
    fn code_that_is_not_in_use_goes_and_comes_back_when_it_is_called() {
        // Runs through code that nothing else here uses.
        let far = || "{\"a\":[1,2,3]}".chars().rev().collect::<String>().to_uppercase();
        let before = (resident_code(), far());
        assert!(give_back_code().unwrap() > 0);
        let after = resident_code();
        assert!(after < before.0, "{after} kB of code resident, {} kB before", before.0);
        assert_eq!(far(), before.1);
    }
}
