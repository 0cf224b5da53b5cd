//! The archive for a ticket: written beside its place first, so that there is never half of one.

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

/// What stands for standard output in the place of a name.
const STDOUT: &str = "-";

/// An archive that is going to be written.
pub enum BundleDestination {
    /// To standard output: nothing else goes there then.
    Stdout,
    /// Into a file.
    File(BundleFile),
}

impl BundleDestination {
    /// Makes sure that it can be written, before any work is done for it.
    pub fn begin(path: &Path, force: bool) -> anyhow::Result<Self> {
        if path != Path::new(STDOUT) {
            return BundleFile::begin(path, force).map(Self::File);
        }
        if io::stdout().is_terminal() {
            bail!(
                "the archive does not go to a terminal: write it to a file, with `> FILE` or by its name"
            );
        }
        Ok(Self::Stdout)
    }

    /// Writes everything. Returns where to, if that has a name.
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

/// A file that the archive becomes.
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
                "{} is there already: choose another name, or replace it with --force",
                path.display()
            );
        }
        // To replace a device or a pipe is never what was meant.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            bail!("{} is no file: choose another name", path.display());
        }
        let Some(name) = path.file_name() else {
            bail!("{} is no name for a file", path.display());
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let unfinished = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // It is an inventory of the network.
            .mode(0o600)
            .open(&unfinished)
            .with_context(|| format!("cannot write beside {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            unfinished,
            file,
            force,
        })
    }

    /// Writes everything and gives it its name.
    fn write(self, explanation: &Explanation, entries: &[BundleEntry]) -> anyhow::Result<PathBuf> {
        write(&self.file, &folder(explanation), explanation.time, entries)
            .and_then(File::sync_all)
            .and_then(|()| self.rename_into_place())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    /// Never over somebody else's file, also if that was made meanwhile.
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
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// The folder in the archive in which everything is.
fn folder(explanation: &Explanation) -> String {
    format!("probe-{}", file_name(&explanation.ip.to_string()))
}

/// What belongs to this host.
pub struct HostSnapshot {
    pub doctor: doctor::DoctorReport,
    pub neighbours: serde_json::Value,
    pub interfaces: serde_json::Value,
}

impl HostSnapshot {
    /// Looks at this host.
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
        BundleEntry::new("explain.txt", "what probe explain said", screen),
        BundleEntry::json("explain.json", "the same for machines", explanation),
        BundleEntry::new(
            "frames.pcapng",
            "the questions and answers of this moment",
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
            "who has the address, and its open conflict, by the daemon",
            &daemon.bindings,
        ));
        entries.push(BundleEntry::json(
            "history.json",
            "what the daemon found about it",
            &daemon.history,
        ));
    }
    if let Ok(known) = &inputs.cluster {
        entries.push(BundleEntry::json(
            "cluster.json",
            "the objects of the cluster concerned",
            &objects(&known.cluster, explanation),
        ));
    }
    entries.push(BundleEntry::json(
        "versions.json",
        "of this program and of the kernel",
        &versions,
    ));
    entries.push(BundleEntry::json(
        "doctor.json",
        "what probe doctor says of this host",
        &host.doctor,
    ));
    Ok(entries)
}

/// Colons are for other things in the names of files.
fn file_name(ip: &str) -> String {
    ip.replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_replaced_unless_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.tar");
        fs::write(&path, "mine").unwrap();
        let error = BundleFile::begin(&path, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        drop(BundleFile::begin(&path, true).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing half done is left");
    }

    #[test]
    fn a_file_that_was_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.tar");
        let bundle = BundleFile::begin(&path, false).unwrap();
        fs::write(&path, "somebody's").unwrap();
        assert!(bundle.rename_into_place().is_err());
        drop(bundle);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
