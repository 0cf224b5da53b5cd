//! Compares the programs that a verb executes with the table of programs.
//!
//! A program that set-up does not install may exist on the development machine by chance, and be missing elsewhere.
//! So the kernel reports executed files (fanotify, `FAN_OPEN_EXEC`), and each file has to belong to a package of
//! the table, to a dependency of one, or to Debian's essential packages.
//!
//! The verb runs in a separate PID namespace: fanotify reports process 0 for processes outside of it, which
//! distinguishes the verb's processes from others, also after they have exited.

mod dpkg;

use std::{
    collections::BTreeSet,
    env, fs,
    io::ErrorKind,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
};

use self::dpkg::Database;
use crate::{cache, host, programs, step};

/// The shell is the namespace's first process: it reaps orphans, and the verb receives signals as usual.
const FIRST_PROCESS: &str = r#""$@"; exit "$?""#;

/// Filesystems without programs.
const PSEUDO_FILESYSTEMS: [&str; 14] = [
    "autofs", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "fusectl",
    "mqueue", "nsfs", "proc", "sysfs", "tracefs",
];

/// The fanotify group of the recording.
static GROUP: OnceLock<Group> = OnceLock::new();

/// Executes this program with other arguments in a new PID namespace. Returns only on failure.
pub fn enter_namespace(arguments: &[&str]) -> Result<()> {
    let this = env::current_exe().context("this program has no path")?;
    let error = programs::command("unshare")?
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--", "sh", "-c", FIRST_PROCESS, "sh"])
        .arg(this)
        .args(arguments)
        .exec();
    Err(error).context("cannot run unshare")
}

/// A fanotify group with marks on all filesystems that contain programs.
#[derive(Clone)]
struct Group {
    fanotify: Arc<Fanotify>,
    mounts: Vec<PathBuf>,
}

impl Group {
    fn mark(&self, flag: MarkFlags) -> Result<()> {
        for mount in &self.mounts {
            let marked = self.fanotify.mark(
                flag | MarkFlags::FAN_MARK_FILESYSTEM,
                MaskFlags::FAN_OPEN_EXEC,
                AT_FDCWD,
                Some(mount.as_path()),
            );
            match marked {
                // Not the root of the mount namespace: some filesystems have no identity, and some mounts are
                // hidden below others.
                Err(_) if mount != Path::new("/") => {}
                result => result.with_context(|| format!("cannot watch {}", mount.display()))?,
            }
        }
        Ok(())
    }
}

/// Runs a function without recording.
pub fn paused<T>(work: impl FnOnce() -> T) -> Result<T> {
    let Some(group) = GROUP.get() else {
        return Ok(work());
    };
    group.mark(MarkFlags::FAN_MARK_REMOVE)?;
    let outcome = work();
    group.mark(MarkFlags::FAN_MARK_ADD)?;
    Ok(outcome)
}

/// A recording in progress.
pub struct Recording {
    reader: JoinHandle<Result<BTreeSet<PathBuf>>>,
    last: PathBuf,
}

impl Recording {
    /// Starts recording in a PID namespace that was entered before; returns nothing on a system without dpkg.
    pub fn start() -> Result<Option<Self>> {
        if programs::find("dpkg-query").is_none() {
            step::log("executed programs are not compared with the table: this system has no dpkg");
            return Ok(None);
        }
        let fanotify = Fanotify::init(
            InitFlags::FAN_CLOEXEC | InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_UNLIMITED_QUEUE,
            EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC,
        )
        .context("cannot record executions: fanotify is missing")?;
        let mountinfo =
            fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        let group = Group {
            fanotify: Arc::new(fanotify),
            mounts: mounts(&mountinfo),
        };
        group.mark(MarkFlags::FAN_MARK_ADD)?;
        let last = last_program()?;
        let reader = thread::spawn({
            let (fanotify, last) = (Arc::clone(&group.fanotify), last.clone());
            move || read(&fanotify, &last)
        });
        GROUP
            .set(group)
            .map_err(|_| anyhow!("executions are recorded already"))?;
        Ok(Some(Self { reader, last }))
    }

    /// Stops recording and compares: the error lists programs that are not in the table.
    pub fn finish(self) -> Result<()> {
        // Events are ordered, so this one is the last.
        step::run(&mut Command::new(&self.last))?;
        let executed = self
            .reader
            .join()
            .map_err(|_| anyhow!("the reader of executions panicked"))??;
        let _ = fs::remove_file(&self.last);
        let foreign: BTreeSet<_> = executed
            .into_iter()
            // In a container the path is that in its root filesystem, and the program is of an image that a test created.
            .filter(|path| path.is_file() && !is_own(path, &own_directories()))
            .collect();
        compare(&foreign, &Database::read(&foreign)?)
    }
}

/// Reads executed files until the last program is among them.
fn read(fanotify: &Fanotify, last: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut executed = BTreeSet::new();
    loop {
        let events = match fanotify.read_events() {
            Err(Errno::EINTR) => continue,
            events => events.context("cannot read executions")?,
        };
        for event in events {
            ensure!(
                !event.mask().contains(MaskFlags::FAN_Q_OVERFLOW),
                "the kernel lost executions"
            );
            let Some(file) = event.fd() else {
                continue;
            };
            // A process outside of the namespace.
            if event.pid() == 0 {
                continue;
            }
            match fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
                Ok(path) if path == last => return Ok(executed),
                Ok(path) => {
                    executed.insert(path);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("cannot read the path of a program"),
            }
        }
    }
}

/// A program that is executed only at the end.
fn last_program() -> Result<PathBuf> {
    let directory = host::target_dir();
    fs::create_dir_all(&directory)?;
    let path = fs::canonicalize(directory)?.join("last-program");
    let last = programs::find("true").context("there is no `true`")?;
    fs::copy(last, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The mount points of the filesystems that may hold programs (`proc_pid_mountinfo(5)`).
fn mounts(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let kind = filesystem.split(' ').next()?;
            (!PSEUDO_FILESYSTEMS.contains(&kind))
                .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
        })
        .collect()
}

/// Directories whose programs belong to no package: build output, the tool cache, Rust's toolchains, and files of
/// tests.
fn own_directories() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let cargo = variable("CARGO").and_then(|cargo| Some(cargo.parent()?.parent()?.to_owned()));
    [
        Some(host::workspace().to_owned()),
        Some(host::target_dir()),
        cache::directory().ok(),
        Some(variable("CARGO_HOME").unwrap_or_else(|| home.join(".cargo"))),
        Some(variable("RUSTUP_HOME").unwrap_or_else(|| home.join(".rustup"))),
        // The directory of another Rust, unless a package owns it.
        cargo.filter(|toolchain| toolchain != Path::new("/usr")),
        Some(env::temp_dir()),
        Some("/tmp".into()),
        Some("/var/tmp".into()),
    ]
    .into_iter()
    .flatten()
    .map(|directory| fs::canonicalize(&directory).unwrap_or(directory))
    .collect()
}

fn is_own(path: &Path, directories: &[PathBuf]) -> bool {
    directories.iter().any(|own| path.starts_with(own))
}

fn compare(executed: &BTreeSet<PathBuf>, database: &Database) -> Result<()> {
    let allowed = database.with_dependencies(&programs::packages());
    let mut wrong = Vec::new();
    for path in executed {
        match database.owner(path) {
            Some(package) if allowed.contains(package) => {}
            Some(package) => wrong.push(format!("    {} (package {package})", path.display())),
            None => wrong.push(format!("    {} (no package)", path.display())),
        }
    }
    if !wrong.is_empty() {
        bail!(
            "these programs were executed, and set-up does not install them: add them to the table in \
             xtask/src/programs.rs\n{}",
            wrong.join("\n")
        );
    }
    step::log(&format!(
        "all of the {} executed system programs are in the table of programs or part of Debian's base",
        executed.len()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_pseudo_filesystems_are_left_out() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /tmp rw shared:2 master:1 - tmpfs tmpfs rw
";
        assert_eq!(mounts(mountinfo), ["/", "/tmp"].map(PathBuf::from));
    }

    #[test]
    fn built_files_belong_to_no_package() {
        let directories = [PathBuf::from("/src/target")];
        assert!(is_own(Path::new("/src/target/debug/x"), &directories));
        assert!(!is_own(Path::new("/usr/bin/x"), &directories));
    }

    #[test]
    fn a_program_that_is_not_in_the_table_is_named_with_its_package() {
        let executed: BTreeSet<_> = ["/usr/bin/dash", "/usr/bin/ip", "/usr/bin/rsync", "/opt/x"]
            .map(PathBuf::from)
            .into();
        let database = Database::parse(
            "dash\tyes\t\t\niproute2\tno\t\t\nrsync\tno\t\t\n",
            "dash: /bin/dash\niproute2: /bin/ip\nrsync: /usr/bin/rsync\n",
        );
        let error = compare(&executed, &database).unwrap_err().to_string();
        assert!(error.contains("/usr/bin/rsync (package rsync)"), "{error}");
        assert!(error.contains("/opt/x (no package)"), "{error}");
        assert!(!error.contains("/usr/bin/ip"), "{error}");
        assert!(!error.contains("dash"), "{error}");
    }
}
