//! Writes the support bundle: to a temporary file first, so that it is never incomplete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use probe_capture::frames;
use probe_cluster::explain::Explanation;
use probe_datapath::clock::wall_clock_offset_ns;
use probe_render::bundle::{BundleEntry, objects, write};

use super::collect::{self, CollectedInputs};
use crate::doctor;

/// The name that means standard output.
const STDOUT: &str = "-";

/// The destination of an archive.
pub enum BundleDestination {
    /// Standard output, to which nothing else is written then.
    Stdout,
    /// A file.
    File(BundleFile),
}

impl BundleDestination {
    /// Checks that the destination can be written, before any other work.
    pub fn begin(path: &Path, force: bool) -> anyhow::Result<Self> {
        if path != Path::new(STDOUT) {
            return BundleFile::begin(path, force).map(Self::File);
        }
        if io::stdout().is_terminal() {
            bail!(
                "the archive is not written to a terminal: redirect it with `> FILE`, or name a file"
            );
        }
        Ok(Self::Stdout)
    }

    /// Writes the archive. Returns its path, if it is a file.
    pub fn write(
        self,
        gathered: &CollectedInputs,
        explanation: &Explanation,
        screen: &str,
        host: &HostSnapshot,
    ) -> anyhow::Result<Option<PathBuf>> {
        let entries = entries(gathered, explanation, screen, host)?;
        match self {
            Self::Stdout => write(
                io::stdout().lock(),
                &folder(explanation),
                explanation.time,
                &entries,
            )
            .and_then(|mut out| out.flush())
            .context("cannot write the archive to standard output")
            .map(|()| None),
            Self::File(bundle) => bundle.write(explanation, &entries).map(Some),
        }
    }
}

/// An archive file that is being written.
pub struct BundleFile {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
    force: bool,
}

impl BundleFile {
    fn begin(path: &Path, force: bool) -> anyhow::Result<Self> {
        if !force && path.symlink_metadata().is_ok() {
            bail!(
                "{} exists: choose another name, or replace it with --force",
                path.display()
            );
        }
        // Replacing a device or a pipe is never intended.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            bail!(
                "{} is not a regular file: choose another name",
                path.display()
            );
        }
        let Some(name) = path.file_name() else {
            bail!("{} is not a file name", path.display());
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let unfinished = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // The archive is an inventory of the network.
            .mode(0o600)
            .open(&unfinished)
            .with_context(|| format!("cannot write in the directory of {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            unfinished,
            file,
            force,
        })
    }

    /// Writes the archive, and renames it to its final name.
    fn write(self, explanation: &Explanation, entries: &[BundleEntry]) -> anyhow::Result<PathBuf> {
        write(&self.file, &folder(explanation), explanation.time, entries)
            .and_then(File::sync_all)
            .and_then(|()| self.rename_into_place())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    /// Renames without replacing a file that was created in the meantime.
    fn rename_into_place(&self) -> io::Result<()> {
        if self.force {
            fs::rename(&self.unfinished, &self.path)
        } else {
            fs::hard_link(&self.unfinished, &self.path)
        }
    }
}

impl Drop for BundleFile {
    fn drop(&mut self) {
        // The file no longer exists under this name if it was renamed.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// The top directory of the archive.
fn folder(explanation: &Explanation) -> String {
    format!("probe-{}", file_name(&explanation.ip.to_string()))
}

/// The data of this host.
pub struct HostSnapshot {
    pub doctor: doctor::DoctorReport,
    pub neighbours: serde_json::Value,
    pub interfaces: serde_json::Value,
}

impl HostSnapshot {
    /// Reads the data of this host.
    pub async fn read(doctor: doctor::DoctorReport) -> anyhow::Result<Self> {
        Ok(Self {
            doctor,
            neighbours: collect::neighbours().await?,
            interfaces: collect::interfaces().await?,
        })
    }
}

fn entries(
    gathered: &CollectedInputs,
    explanation: &Explanation,
    screen: &str,
    host: &HostSnapshot,
) -> anyhow::Result<Vec<BundleEntry>> {
    let inputs = &gathered.inputs;
    let screen = anstream::adapter::strip_str(screen).to_string();
    let interface = explanation.check.as_ref();
    let interface = interface.map_or("", |check| check.interface.as_str());
    let frames = frames(&gathered.frames, interface, wall_clock_offset_ns());
    let frames = frames.context("cannot write the frames")?;
    let versions = serde_json::json!({
        "probe": env!("CARGO_PKG_VERSION"),
        "kernel": rustix::system::uname().release().to_string_lossy(),
    });
    let mut entries = vec![
        BundleEntry::new("explain.txt", "output of probe explain", screen),
        BundleEntry::json("explain.json", "the same as JSON", explanation),
        BundleEntry::new(
            "frames.pcapng",
            "the probes and replies of this check",
            frames,
        ),
        BundleEntry::json(
            "neighbors.json",
            "this host's neighbour table",
            &host.neighbours,
        ),
        BundleEntry::json(
            "interfaces.json",
            "this host's interfaces",
            &host.interfaces,
        ),
    ];
    if let Ok(daemon) = &inputs.daemon {
        entries.push(BundleEntry::json(
            "bindings.json",
            "the owners of the address and its open conflict, from the daemon",
            &daemon.bindings,
        ));
        entries.push(BundleEntry::json(
            "history.json",
            "the findings of the daemon about it",
            &daemon.history,
        ));
    }
    if let Ok(known) = &inputs.cluster {
        entries.push(BundleEntry::json(
            "cluster.json",
            "the related objects of the cluster",
            &objects(&known.cluster, explanation),
        ));
    }
    entries.push(BundleEntry::json(
        "versions.json",
        "versions of this program and of the kernel",
        &versions,
    ));
    entries.push(BundleEntry::json(
        "doctor.json",
        "output of probe doctor",
        &host.doctor,
    ));
    Ok(entries)
}

/// Replaces colons, which have other meanings in file names.
fn file_name(ip: &str) -> String {
    ip.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_file_is_replaced_only_with_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.tar");
        fs::write(&path, "mine").unwrap();
        let error = BundleFile::begin(&path, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        drop(BundleFile::begin(&path, true).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left");
    }

    #[test]
    fn file_created_concurrently_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.tar");
        let bundle = BundleFile::begin(&path, false).unwrap();
        fs::write(&path, "somebody's").unwrap();
        assert!(bundle.rename_into_place().is_err());
        drop(bundle);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
