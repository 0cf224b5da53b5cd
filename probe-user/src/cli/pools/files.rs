//! Reads manifests from files, standard input and directories.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use probe_pools::{AddressPlan, ManifestError, PoolInventory, manifest};

/// Maximum size of a manifest file, in MiB.
const MAX_FILE_MIB: u64 = 64;
/// Maximum depth of nested directories.
const MAX_FOLDER_DEPTH: usize = 64;

/// Reads the files of a cluster.
pub struct ManifestFileReader<'a> {
    inventory: &'a mut PoolInventory,
    cluster: &'a str,
    /// The canonical paths of the directories read so far, so that none is read twice.
    visited: HashSet<PathBuf>,
}

impl<'a> ManifestFileReader<'a> {
    /// A reader for manifests of this cluster.
    pub fn new(inventory: &'a mut PoolInventory, cluster: &'a str) -> Self {
        Self {
            inventory,
            cluster,
            visited: HashSet::new(),
        }
    }

    /// Reads a path given on the command line; a file is read regardless of its name.
    pub fn read_source(&mut self, path: &Path) {
        // Register the cluster even if it has no pools.
        self.inventory.cluster(self.cluster);
        if !is_stdin(path) && path.is_dir() {
            self.read_folder(path, MAX_FOLDER_DEPTH);
        } else {
            match read(path) {
                Ok(text) => {
                    manifest::read(self.inventory, self.cluster, &display_name(path), &text);
                }
                Err(error) => self.record_unread(path, error),
            }
        }
    }

    /// Reads the manifests of a directory, in the order of names.
    fn read_folder(&mut self, folder: &Path, depth: usize) {
        match folder.canonicalize() {
            Ok(whole) => {
                if !self.visited.insert(whole) {
                    return;
                }
            }
            Err(error) => return self.record_unread(folder, ManifestError::Io(error.to_string())),
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.record_unread(folder, ManifestError::Io(error.to_string())),
        };
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            let kind = entry.file_type();
            // The target of a symbolic link may be inaccessible; report it.
            if kind.is_ok_and(|kind| kind.is_dir()) || path.is_dir() {
                match depth.checked_sub(1) {
                    Some(depth) => self.read_folder(&path, depth),
                    None => {
                        self.record_unread(&path, ManifestError::Io("nested too deeply".into()));
                    }
                }
            } else if is_manifest(&path) {
                self.file(&path);
            }
        }
    }

    /// Reads a file found in a directory; it is ignored unless it may define pools.
    fn file(&mut self, path: &Path) {
        // Reading a pipe or a device could block for ever.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return self.record_unread(path, ManifestError::Io("not a regular file".into()));
        }
        match read(path) {
            Ok(text) => {
                manifest::read_found(self.inventory, self.cluster, &display_name(path), &text);
            }
            Err(error) => self.record_unread(path, error),
        }
    }

    fn record_unread(&mut self, path: &Path, error: ManifestError) {
        let file = self.inventory.file(&display_name(path));
        self.inventory.record_unread(file, None, error);
    }
}

/// Reads a plan. Errors are recorded in the inventory, and the plan is empty.
pub fn read_plan(inventory: &mut PoolInventory, path: &Path) -> AddressPlan {
    match read(path) {
        Ok(text) => AddressPlan::read(inventory, &display_name(path), &text),
        Err(error) => {
            let file = inventory.file(&display_name(path));
            inventory.record_unread(file, None, error);
            AddressPlan::default()
        }
    }
}

/// Reads the text of a file, or of standard input.
pub fn read(path: &Path) -> Result<String, ManifestError> {
    let source: io::Result<Box<dyn Read>> = if is_stdin(path) {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let limit = MAX_FILE_MIB << 20;
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| ManifestError::Io(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(ManifestError::TooLarge {
            limit: MAX_FILE_MIB,
        });
    }
    String::from_utf8(bytes).map_err(|_| ManifestError::NotUtf8)
}

/// Whether a path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// The name of a path in messages, as typed.
pub fn display_name(path: &Path) -> String {
    if is_stdin(path) {
        return "stdin".to_owned();
    }
    path.display().to_string().trim_end_matches('/').to_owned()
}
