//! The memory limit of the cgroup that this process is in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{KernelError, LoadOptions, cpus, memory, preflight};

/// What user space takes at least while it works: its code, a table of bindings, the last findings and the queues of
/// clients. `docs/installation.md` has more.
const USER_SPACE_BYTES: u64 = 48 << 20;

/// Refuses to start where the memory limit of the cgroup would end in an OOM kill.
pub fn check_memory(options: &LoadOptions) -> Result<(), KernelError> {
    let Some(limit) = memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
    else {
        return Ok(());
    };
    let maps: u64 = if preflight::kernel_at_least(5, 11) {
        let cpus = cpus::possible()?;
        memory::shares(options, cpus)
            .iter()
            .map(|share| share.bytes)
            .sum()
    } else {
        0
    };
    check_limit(limit, maps)
}

fn check_limit(limit: u64, maps: u64) -> Result<(), KernelError> {
    let needed = maps + USER_SPACE_BYTES;
    if limit < needed {
        return Err(KernelError::MemoryLimit { limit, needed });
    }
    Ok(())
}

/// The lowest limit of the cgroup and those above it, as far as they can be read. Both hierarchies of cgroups are known.
fn memory_limit(membership: &Path, root: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let limits = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_memory = controllers
            .split(',')
            .any(|controller| controller == "memory");
        match (controllers.is_empty(), is_memory) {
            (true, _) => lowest(root.to_owned(), path, "memory.max"),
            (false, true) => lowest(root.join("memory"), path, "memory.limit_in_bytes"),
            (false, false) => None,
        }
    });
    limits.min()
}

/// The lowest number in files of this name, from the root of a hierarchy down to a cgroup. A file that cannot be read, or
/// says `max`, sets no limit: in a container the path is that of the host.
fn lowest(root: PathBuf, path: &str, file: &str) -> Option<u64> {
    let mut directory = root;
    let parts = path.split('/').filter(|part| !part.is_empty());
    let mut limits = vec![read_limit(&directory.join(file))];
    for part in parts {
        directory.push(part);
        limits.push(read_limit(&directory.join(file)));
    }
    limits.into_iter().flatten().min()
}

fn read_limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_holds_in_both_hierarchies() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let membership = root.join("membership");
        let limit = |text: &str| {
            fs::write(&membership, text).unwrap();
            memory_limit(&membership, root)
        };
        write("pods/memory.max", "1000\n");
        write("pods/a/memory.max", "max\n");
        write("memory/b/memory.limit_in_bytes", "500\n");
        assert_eq!(limit("0::/pods/a\n"), Some(1_000));
        assert_eq!(limit("0::/elsewhere\n"), None);
        assert_eq!(limit("4:cpu,memory:/b\n3:pids:/pods\n"), Some(500));
        assert_eq!(limit("0::/pods/a\n4:memory:/b\n"), Some(500));
        assert_eq!(limit("nonsense\n"), None);
    }

    #[test]
    fn a_limit_that_would_end_in_an_oom_kill_is_refused_with_what_is_needed() {
        const MIB: u64 = 1 << 20;
        for limit in [48 * MIB, 64 * MIB] {
            let error = check_limit(limit, 20 * MIB).unwrap_err().to_string();
            assert!(error.contains("at least 68 MiB"), "{error}");
        }
        check_limit(256 * MIB, 166 * MIB).unwrap();
    }
}
