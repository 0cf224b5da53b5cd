//! The files that pools are read from: named ones, standard input, and whole folders.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use probe_pools::{Inventory, Plan, ReadError, manifest};

/// Larger files are no manifests.
const LARGEST_MIB: u64 = 64;
/// Folders in folders in folders are followed this deep.
const DEEPEST_FOLDER: usize = 64;

/// Reads the files of a cluster.
pub struct Reader<'a> {
    inventory: &'a mut Inventory,
    cluster: &'a str,
    /// The folders that were read, as they are without symbolic links: none is read twice, or for ever.
    seen: HashSet<PathBuf>,
}

impl<'a> Reader<'a> {
    /// Reads what comes for this cluster.
    pub fn new(inventory: &'a mut Inventory, cluster: &'a str) -> Self {
        Self {
            inventory,
            cluster,
            seen: HashSet::new(),
        }
    }

    /// What somebody named: a file is read whatever it is.
    pub fn source(&mut self, path: &Path) {
        // A cluster without pools is one as well.
        self.inventory.cluster(self.cluster);
        if !is_stdin(path) && path.is_dir() {
            self.folder(path, DEEPEST_FOLDER);
        } else {
            match read(path) {
                Ok(text) => {
                    manifest::read(self.inventory, self.cluster, &display_name(path), &text);
                }
                Err(error) => self.cannot_read(path, error),
            }
        }
    }

    /// A folder: what looks like manifests, in the order of names.
    fn folder(&mut self, folder: &Path, depth: usize) {
        match folder.canonicalize() {
            Ok(whole) => {
                if !self.seen.insert(whole) {
                    return;
                }
            }
            Err(error) => return self.cannot_read(folder, ReadError::Io(error.to_string())),
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.cannot_read(folder, ReadError::Io(error.to_string())),
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
                    Some(depth) => self.folder(&path, depth),
                    None => self.cannot_read(&path, ReadError::Io("nested too deeply".into())),
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
            return self.cannot_read(path, ReadError::Io("it is no regular file".into()));
        }
        match read(path) {
            Ok(text) => {
                manifest::read_found(self.inventory, self.cluster, &display_name(path), &text);
            }
            Err(error) => self.cannot_read(path, error),
        }
    }

    fn cannot_read(&mut self, path: &Path, error: ReadError) {
        let file = self.inventory.file(&display_name(path));
        self.inventory.cannot_read(file, None, error);
    }
}

/// Reads a plan; one that cannot be read is noted, and empty.
pub fn read_plan(inventory: &mut Inventory, path: &Path) -> Plan {
    match read(path) {
        Ok(text) => Plan::read(inventory, &display_name(path), &text),
        Err(error) => {
            let file = inventory.file(&display_name(path));
            inventory.cannot_read(file, None, error);
            Plan::default()
        }
    }
}

/// The text of a file, or of standard input.
pub fn read(path: &Path) -> Result<String, ReadError> {
    let source: io::Result<Box<dyn Read>> = if is_stdin(path) {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let limit = LARGEST_MIB << 20;
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| ReadError::Io(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit: LARGEST_MIB });
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotUtf8)
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
