//! Checks the memory limit of the cgroup of this process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{KernelError, LoadOptions, cpus, memory, preflight};

/// The minimum memory of user space, in bytes: its code, the binding table, the last findings and the client queues.
/// `docs/installation.md` has the details.
const USER_SPACE_BYTES: u64 = 48 << 20;

/// Returns an error if the memory limit of the cgroup is so low that the process would be killed (OOM).
pub fn check_memory(options: &LoadOptions) -> Result<(), KernelError> {
    let Some(limit) = memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
    else {
        return Ok(());
    };
    let maps: u64 = if preflight::kernel_at_least(5, 11) {
        let cpus = cpus::possible()?;
        memory::map_memory(options, cpus)
            .iter()
            .map(|map| map.bytes)
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

/// The lowest memory limit of the cgroup and its ancestors, as far as they can be read, for cgroups v1 and v2.
fn memory_limit(membership: &Path, root: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let limits = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_memory = controllers
            .split(',')
            .any(|controller| controller == "memory");
        match (controllers.is_empty(), is_memory) {
            (true, _) => lowest_limit(root.to_owned(), path, "memory.max"),
            (false, true) => lowest_limit(root.join("memory"), path, "memory.limit_in_bytes"),
            (false, false) => None,
        }
    });
    limits.min()
}

/// The lowest number in the files of this name, from the root of a hierarchy down to a cgroup. A file that cannot be read
/// or that contains `max` sets no limit. (In a container, the path may be one of the host.)
fn lowest_limit(root: PathBuf, path: &str, file: &str) -> Option<u64> {
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
    fn the_lowest_limit_of_all_ancestors_applies_in_both_hierarchies() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
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
    fn a_limit_that_is_too_low_is_rejected_with_the_required_memory() {
        const MIB: u64 = 1 << 20;
        for limit in [48 * MIB, 64 * MIB] {
            let error = check_limit(limit, 20 * MIB).unwrap_err().to_string();
            assert!(error.contains("at least 68 MiB"), "{error}");
        }
        check_limit(256 * MIB, 166 * MIB).unwrap();
    }
}
