//! Files that a program in the lab is told to read or write.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context;

use crate::namespace::{PREFIX, maker_of};

/// A directory that lasts as long as its owner.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty one.
    pub fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{PREFIX}.{}.{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where a file of this name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a shell script.
    pub fn script(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.write(name, &format!("#!/bin/sh\nset -eu\n{text}"))?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure has no one to hear it, and the next lab tries again.
        let _ = remove(&self.0);
    }
}

/// Removes the directories of labs whose process is no more.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str()
            && maker_of(name).is_some_and(|maker| !Path::new("/proc").join(maker).exists())
        {
            let _ = remove(&entry.path());
        }
    }
}

/// Removes a directory, but nothing that a symbolic link of such a name leads to.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_owner_and_an_abandoned_one_with_the_next_lab() {
        let scratch = Scratch::new().unwrap();
        let script = scratch.script("hello", "echo hello\n").unwrap();
        // No process has this number: it is above the kernel's own limit (PID_MAX_LIMIT).
        let abandoned = env::temp_dir().join(format!("{PREFIX}.4194305.0"));
        fs::create_dir_all(abandoned.join("more")).unwrap();

        sweep();
        assert!(!abandoned.exists(), "an abandoned one stayed");
        assert!(script.exists(), "one that is in use was removed");
        drop(scratch);
        assert!(!script.exists(), "one stayed after its owner");
    }
}
