//! Detects changes of a file.
//!
//! The directory is watched: a file replaced by renaming is a new inode, and Kubernetes renames a symbolic link next to
//! the file's link. The content under the name is compared; it is also polled, to cover links into other directories
//! and replaced directories.

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

/// The delay after the last event before the file is read, because a file is written in several steps.
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// Maximum delay under continuous events.
const MAX_SETTLE: Duration = Duration::from_secs(2);
/// The polling interval without events.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Watches a file for changes.
#[derive(Debug)]
pub struct FileWatcher {
    path: PathBuf,
    /// The inotify events of its directory, if available.
    events: Option<AsyncFd<OwnedFd>>,
    /// The last content.
    last_content: Option<Vec<u8>>,
    /// Whether an event has arrived since the last read. Stored here because the waiting future may be cancelled.
    change_pending: bool,
}

impl FileWatcher {
    /// Watches a file with the last content `last_content`. Must be called within the runtime.
    pub fn new(path: &Path, last_content: Vec<u8>) -> Self {
        let follower = Self {
            path: path.to_owned(),
            events: None,
            last_content: Some(last_content),
            // The file may have changed since it was read.
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

    /// Completes when the content differs from the last read, or when the file becomes unreadable or readable.
    pub async fn changed(&mut self) {
        loop {
            // Renewed each time because the directory may have been replaced; adding an existing watch has no effect.
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

    /// Reads the file now. Returns whether the content has changed.
    pub fn reread(&mut self) -> bool {
        let now = file::read(&self.path).ok();
        let differs = now != self.last_content;
        self.last_content = now;
        differs
    }

    /// Waits until there are no events in the directory for [`SETTLE_DELAY`].
    async fn wait_until_settled(&self) {
        let latest = Instant::now() + MAX_SETTLE;
        loop {
            let settled = (Instant::now() + SETTLE_DELAY).min(latest);
            if timeout_at(settled, self.wait_for_event()).await.is_err() {
                return;
            }
        }
    }

    /// Completes on an event in the directory.
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
                // Spurious readiness.
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

/// Reads the pending events; an error if there are none.
fn drain(inotify: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut any = false;
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    // The content of the events does not matter.
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

    /// More than any event needs, and less than the polling interval.
    const TIMEOUT: Duration = Duration::from_secs(20);

    async fn changes(follower: &mut FileWatcher) {
        timeout(TIMEOUT, follower.changed()).await.unwrap();
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
        assert_eq!(follower.last_content.as_deref(), Some(&b"c"[..]));
    }

    #[tokio::test]
    async fn config_map_is_read_through_its_symbolic_links() {
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
        assert_eq!(follower.last_content.as_deref(), Some(&b"b"[..]));
    }

    #[tokio::test]
    async fn unchanged_file_causes_no_reload() {
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
