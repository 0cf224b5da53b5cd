//! A network namespace that is removed when its owner drops it.

use std::{
    fs::{self, File},
    os::{fd::AsFd, linux::fs::MetadataExt},
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, bail};
use rustix::{
    process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::tool::ip;

/// The directory of the names of `ip netns`.
const DIRECTORY: &str = "/run/netns";

/// The prefix of the name of every namespace of a lab; the process ID follows.
const PREFIX: &str = "probe-lab";

/// A named network namespace without IPv6 and with its loopback interface up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Creates a namespace. `lab` and `part` make the name unique within this process.
    pub fn new(lab: u32, part: &str) -> anyhow::Result<Arc<Self>> {
        if !geteuid().is_root() {
            bail!("the lab needs network namespaces and so root: run it with sudo");
        }
        let name = format!("{PREFIX}.{}.{lab}.{part}", std::process::id());
        ip(["netns", "add", &name])?;
        let namespace = File::open(path_of(&name))
            .map(|handle| Self {
                name: name.clone(),
                handle,
            })
            .with_context(|| format!("cannot open the namespace {name}"))?;
        namespace.disable_ipv6()?;
        namespace.ip(["link", "set", "dev", "lo", "up"])?;
        Ok(Arc::new(namespace))
    }

    /// The name for `ip -n` and `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace.
    pub fn ip<'a>(&'a self, words: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
        ip(["-n", &self.name].into_iter().chain(words))
    }

    /// Runs a closure in the namespace on a separate thread, because a thread that has entered a namespace cannot
    /// safely return. Sockets that it opens stay in the namespace.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter the namespace {}", self.name))?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Disables IPv6, so that the kernel sends no frames that the test did not cause.
    fn disable_ipv6(&self) -> anyhow::Result<()> {
        self.enter(|| {
            for scope in ["all", "default"] {
                let switch = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                // A kernel without IPv6 has no such file.
                if Path::new(&switch).exists() {
                    fs::write(&switch, "1").with_context(|| format!("cannot write {switch}"))?;
                }
            }
            Ok(())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of labs whose process no longer exists, and kills the processes in them.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return; // no namespace exists
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str()
            && creator_of(name).is_some_and(|creator| !Path::new("/proc").join(creator).exists())
        {
            end_processes_in(name);
            remove(name);
        }
    }
}

/// The ID of the process that created this namespace, if it belongs to a lab.
fn creator_of(name: &str) -> Option<&str> {
    let (creator, _) = name
        .strip_prefix(PREFIX)?
        .strip_prefix('.')?
        .split_once('.')?;
    creator.parse::<u32>().is_ok().then_some(creator)
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Removes the name of a namespace. The namespace itself exists until the last process or socket in it ends. An
/// error is ignored because the next lab tries again.
fn remove(name: &str) {
    let _ = ip(["netns", "del", name]);
}

/// Kills the processes in an abandoned namespace of a lab.
fn end_processes_in(name: &str) {
    let (Ok(namespace), Ok(pids)) = (fs::metadata(path_of(name)), ip(["netns", "pids", name]))
    else {
        return;
    };
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        // The file descriptor refers to the process: without it, the process ID could have been reused since.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let is_inside = fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|its| {
            its.st_ino() == namespace.st_ino() && its.st_dev() == namespace.st_dev()
        });
        if is_inside {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command, time::Duration};

    use super::*;
    use crate::wait::eventually;

    #[test]
    fn only_namespaces_of_labs_are_recognised() {
        assert_eq!(creator_of("probe-lab.4711.0.a"), Some("4711"));
        for other in [
            "cni-4711",
            "probe-lab",
            "probe-lab.x.0.a",
            "probe-lab4711.0.a",
        ] {
            assert_eq!(creator_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_namespace_is_removed_on_drop_and_an_abandoned_one_by_the_next_lab() {
        let namespace = Namespace::new(u32::MAX, "sweep").unwrap();
        let own = path_of(namespace.name());
        // No process has this ID: it exceeds the kernel's limit (PID_MAX_LIMIT).
        let abandoned = format!("{PREFIX}.4194305.{}.sweep", std::process::id());
        ip(["netns", "add", &abandoned]).unwrap();
        let foreign = format!("not-{PREFIX}.4194305.{}", std::process::id());
        ip(["netns", "add", &foreign]).unwrap();
        let mut left_behind = Command::new("ip")
            .args(["netns", "exec", &abandoned, "sleep", "60"])
            .spawn()
            .unwrap();
        eventually("a process to be inside", Duration::from_secs(5), || {
            Ok((!ip(["netns", "pids", &abandoned])?.is_empty()).then_some(()))
        })
        .unwrap();

        sweep();
        let foreign_stays = path_of(&foreign).exists();
        remove(&foreign);
        assert!(foreign_stays, "a namespace of another program was removed");
        assert!(
            !path_of(&abandoned).exists(),
            "an abandoned namespace was not removed"
        );
        assert_eq!(left_behind.wait().unwrap().signal(), Some(9));
        assert!(own.exists(), "a namespace in use was removed");
        drop(namespace);
        assert!(!own.exists(), "a dropped namespace was not removed");
    }
}
