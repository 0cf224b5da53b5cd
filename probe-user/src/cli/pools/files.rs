//! The files that pools are read from: named ones, standard input, and whole folders.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use probe_pools::{AddressPlan, ManifestError, PoolInventory, manifest};

/// Larger files are no manifests.
const MAX_FILE_MIB: u64 = 64;
/// Folders in folders in folders are followed this deep.
const MAX_FOLDER_DEPTH: usize = 64;

/// Reads the files of a cluster.
pub struct ManifestFileReader<'a> {
    inventory: &'a mut PoolInventory,
    cluster: &'a str,
    /// The folders that were read, as they are without symbolic links: none is read twice, or for ever.
    seen: HashSet<PathBuf>,
}

impl<'a> ManifestFileReader<'a> {
    /// Reads what comes for this cluster.
    pub fn new(inventory: &'a mut PoolInventory, cluster: &'a str) -> Self {
        Self {
            inventory,
            cluster,
            seen: HashSet::new(),
        }
    }

    /// What somebody named: a file is read whatever it is.
    pub fn read_source(&mut self, path: &Path) {
        // A cluster without pools is one as well.
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

    /// A folder: what looks like manifests, in the order of names.
    fn read_folder(&mut self, folder: &Path, depth: usize) {
        match folder.canonicalize() {
            Ok(whole) => {
                if !self.seen.insert(whole) {
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
            // What a link leads to may be out of reach; a folder is one in any case.
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

    /// A file in a folder: nobody's business unless it may define pools.
    fn file(&mut self, path: &Path) {
        // A pipe would be waited for, and a device read for ever.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return self.record_unread(path, ManifestError::Io("it is no regular file".into()));
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

/// Reads a plan; one that cannot be read is noted, and empty.
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

/// The text of a file, or of standard input.
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

/// Whether a path stands for standard input.
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

/// What a path is called in messages: as it was typed.
pub fn display_name(path: &Path) -> String {
    if is_stdin(path) {
        return "stdin".to_owned();
    }
    path.display().to_string().trim_end_matches('/').to_owned()
}
