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
use probe_datapath::clock::since_1970_ns;
use probe_render::bundle::{Entry, objects, write};

use super::gather::{self, Gathered};
use crate::doctor;

/// What stands for standard output in the place of a name.
const STDOUT: &str = "-";

/// An archive that is going to be written.
pub enum Archive {
    /// To standard output: nothing else goes there then.
    Stdout,
    /// Into a file.
    File(Bundle),
}

impl Archive {
    /// Makes sure that it can be written, before any work is done for it.
    pub fn begin(path: &Path, force: bool) -> anyhow::Result<Self> {
        if path != Path::new(STDOUT) {
            return Bundle::begin(path, force).map(Self::File);
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
        gathered: &Gathered,
        explanation: &Explanation,
        screen: &str,
        host: &HostPicture,
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
pub struct Bundle {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
    force: bool,
}

impl Bundle {
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
    fn write(self, explanation: &Explanation, entries: &[Entry]) -> anyhow::Result<PathBuf> {
        write(&self.file, &folder(explanation), explanation.time, entries)
            .and_then(File::sync_all)
            .and_then(|()| self.place())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    /// Never over somebody else's file, also if that was made meanwhile.
    fn place(&self) -> io::Result<()> {
        if self.force {
            fs::rename(&self.unfinished, &self.path)
        } else {
            fs::hard_link(&self.unfinished, &self.path)
        }
    }
}

impl Drop for Bundle {
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
pub struct HostPicture {
    pub doctor: doctor::Report,
    pub neighbours: serde_json::Value,
    pub interfaces: serde_json::Value,
}

impl HostPicture {
    /// Looks at this host.
    pub async fn look(doctor: doctor::Report) -> anyhow::Result<Self> {
        Ok(Self {
            doctor,
            neighbours: gather::neighbours().await?,
            interfaces: gather::interfaces().await?,
        })
    }
}

fn entries(
    gathered: &Gathered,
    explanation: &Explanation,
    screen: &str,
    host: &HostPicture,
) -> anyhow::Result<Vec<Entry>> {
    let material = &gathered.material;
    let screen = anstream::adapter::strip_str(screen).to_string();
    let interface = explanation.check.as_ref();
    let interface = interface.map_or("", |check| check.interface.as_str());
    let frames = frames(&gathered.frames, interface, since_1970_ns());
    let frames = frames.context("cannot write the frames")?;
    let versions = serde_json::json!({
        "probe": env!("CARGO_PKG_VERSION"),
        "kernel": rustix::system::uname().release().to_string_lossy(),
    });
    let mut entries = vec![
        Entry::new("explain.txt", "what probe explain said", screen),
        Entry::json("explain.json", "the same for machines", explanation),
        Entry::new(
            "frames.pcapng",
            "the questions and answers of this moment",
            frames,
        ),
        Entry::json(
            "neighbours.json",
            "this host's neighbour table",
            &host.neighbours,
        ),
        Entry::json(
            "interfaces.json",
            "this host's interfaces",
            &host.interfaces,
        ),
    ];
    if let Ok(daemon) = &material.daemon {
        entries.push(Entry::json(
            "bindings.json",
            "who has the address, and its open conflict, by the daemon",
            &daemon.bindings,
        ));
        entries.push(Entry::json(
            "history.json",
            "what the daemon found about it",
            &daemon.history,
        ));
    }
    if let Ok(known) = &material.cluster {
        entries.push(Entry::json(
            "cluster.json",
            "the objects of the cluster concerned",
            &objects(&known.cluster, explanation),
        ));
    }
    entries.push(Entry::json(
        "versions.json",
        "of this program and of the kernel",
        &versions,
    ));
    entries.push(Entry::json(
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
        let error = Bundle::begin(&path, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        drop(Bundle::begin(&path, true).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing half done is left");
    }

    #[test]
    fn a_file_that_was_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket.tar");
        let bundle = Bundle::begin(&path, false).unwrap();
        fs::write(&path, "somebody's").unwrap();
        assert!(bundle.place().is_err());
        drop(bundle);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
