//! Notices that a file says something else.
//!
//! What is watched is the directory: a file that is replaced by renaming is another file, and Kubernetes renames
//! a link beside the one that leads to the file. What counts is what can be read under the name; it is also
//! looked at now and then, for links that lead elsewhere and directories that are replaced.

use std::{
    future, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use probe_datapath::readiness;
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep, timeout_at},
};

use super::file;

/// Whoever writes a file does it in several steps; this long after the last it is looked at.
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// Whoever never rests does not keep it from being looked at.
const MAX_SETTLE: Duration = Duration::from_secs(2);
/// How often it is looked at without any sign.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Follows a file.
#[derive(Debug)]
pub struct FileWatcher {
    path: PathBuf,
    /// What happens in its directory, if the kernel tells.
    events: Option<AsyncFd<OwnedFd>>,
    /// What could be read last.
    seen: Option<Vec<u8>>,
    /// Something has happened since the file was last looked at. Kept here, because whoever waits may be called
    /// away by a signal.
    change_pending: bool,
}

impl FileWatcher {
    /// Follows a file in which there was this. To be called within the runtime.
    pub fn new(path: &Path, seen: Vec<u8>) -> Self {
        let follower = Self {
            path: path.to_owned(),
            events: None,
            seen: Some(seen),
            // It may have changed since it was read.
            change_pending: true,
        };
        match open() {
            Ok(events) => Self {
                events: Some(events),
                ..follower
            },
            Err(error) => {
                tracing::warn!(
                    %error,
                    "inotify is not to be had (fs.inotify.max_user_instances?): the settings are looked at every \
                     {} s instead",
                    POLL_INTERVAL.as_secs()
                );
                follower
            }
        }
    }

    /// Completes when there is something else in the file than when it was last looked at, or when it cannot
    /// be read any more, or can again.
    pub async fn changed(&mut self) {
        loop {
            // Anew each time, in case the directory is another one; to watch one twice is to watch it once.
            if let Err(error) = self.watch() {
                tracing::debug!(%error, path = %self.path.display(), "the directory of the settings cannot be watched");
            }
            if !self.change_pending {
                tokio::select! {
                    () = self.wait_for_event() => {}
                    () = sleep(POLL_INTERVAL) => {}
                }
                self.change_pending = true;
            }
            self.wait_until_settled().await;
            self.change_pending = false;
            if self.reread() {
                return;
            }
        }
    }

    /// Looks at the file now. Returns whether there is something else in it.
    pub fn reread(&mut self) -> bool {
        let now = file::read(&self.path).ok();
        let differs = now != self.seen;
        self.seen = now;
        differs
    }

    /// Waits until nothing happens in the directory for a moment.
    async fn wait_until_settled(&self) {
        let latest = Instant::now() + MAX_SETTLE;
        loop {
            let settled = (Instant::now() + SETTLE_DELAY).min(latest);
            if timeout_at(settled, self.wait_for_event()).await.is_err() {
                return;
            }
        }
    }

    /// Completes when something has happened in the directory.
    async fn wait_for_event(&self) {
        let Some(events) = &self.events else {
            return future::pending().await;
        };
        loop {
            let drained = match events.readable().await {
                Ok(mut ready) => ready.try_io(|events| drain(events.get_ref())),
                Err(error) => Ok(Err(error)),
            };
            match drained {
                Ok(Ok(())) => return,
                // Nothing there after all.
                Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "inotify");
                    return sleep(POLL_INTERVAL).await;
                }
            }
        }
    }

    fn watch(&self) -> io::Result<()> {
        let Some(events) = &self.events else {
            return Ok(());
        };
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let signs = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        inotify::add_watch(events.get_ref(), directory, signs)?;
        Ok(())
    }
}

fn open() -> io::Result<AsyncFd<OwnedFd>> {
    readiness::readable(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Takes the events that there are; an error if there is none.
fn drain(inotify: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut any = false;
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    // What happened to which file is of no interest.
    loop {
        match reader.next() {
            Ok(_) => any = true,
            Err(Errno::AGAIN) if any => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    /// Far more than it takes, and less than it takes to look without a sign.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn changes(follower: &mut FileWatcher) {
        timeout(PATIENCE, follower.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_rewritten_replaced_or_removed_is_noticed() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.yaml");
        fs::write(&path, "a").unwrap();
        let mut follower = FileWatcher::new(&path, b"a".to_vec());
        fs::write(&path, "b").unwrap();
        changes(&mut follower).await;
        let other = directory.path().join("other");
        fs::write(&other, "c").unwrap();
        fs::rename(&other, &path).unwrap();
        changes(&mut follower).await;
        fs::remove_file(&path).unwrap();
        changes(&mut follower).await;
        fs::write(&path, "c").unwrap();
        changes(&mut follower).await;
        assert_eq!(follower.seen.as_deref(), Some(&b"c"[..]));
    }

    #[tokio::test]
    async fn a_config_map_is_followed_through_its_links() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "a"), ("..2", "b")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let mut follower = FileWatcher::new(&at("config.yaml"), b"a".to_vec());
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        changes(&mut follower).await;
        assert_eq!(follower.seen.as_deref(), Some(&b"b"[..]));
    }

    #[tokio::test]
    async fn what_leaves_the_file_as_it_was_is_nothing() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.yaml");
        fs::write(&path, "a").unwrap();
        let mut follower = FileWatcher::new(&path, b"a".to_vec());
        fs::write(&path, "a").unwrap();
        fs::write(directory.path().join("other"), "x").unwrap();
        let noticed = timeout(Duration::from_secs(1), follower.changed()).await;
        assert!(noticed.is_err());
    }
}
