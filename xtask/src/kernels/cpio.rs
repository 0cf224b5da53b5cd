//! The file tree of a guest as a cpio archive in the "new ASCII" format, which the kernel unpacks at boot.
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel)

use std::{collections::BTreeMap, path::Path};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// The name of the last entry of an archive.
const TRAILER: &str = "TRAILER!!!";

/// A file tree under construction. Its files belong to root and are executable.
#[derive(Default)]
pub struct Tree(BTreeMap<String, (u32, Vec<u8>)>);

impl Tree {
    /// Adds a file and its parent directories.
    pub fn file(&mut self, path: impl AsRef<Path>, contents: Vec<u8>) {
        self.add(path.as_ref(), PROGRAM, contents);
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: impl AsRef<Path>) {
        self.add(path.as_ref(), DIRECTORY, Vec::new());
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, target: &str) {
        self.add(path.as_ref(), LINK, target.into());
    }

    fn add(&mut self, path: &Path, mode: u32, contents: Vec<u8>) {
        if let Some(parent) = path.parent().filter(|parent| !name(parent).is_empty()) {
            self.directory(parent);
        }
        self.0.insert(name(path), (mode, contents));
    }

    /// The archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        // In alphabetical order, so that every directory comes before its entries.
        for (inode, (name, (mode, contents))) in (1..).zip(&self.0) {
            append(&mut archive, inode, name, *mode, contents);
        }
        append(&mut archive, 0, TRAILER, 0, &[]);
        archive
    }
}

/// The name of a path in the archive: without the root.
fn name(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

fn append(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, contents: &[u8]) {
    archive.extend_from_slice(b"070701");
    let name_size = name.len() + 1;
    // Inode, mode, owner, group, links, time, size, device, rdev, length of the name, checksum.
    for field in [
        inode as usize,
        mode as usize,
        0,
        0,
        1,
        0,
        contents.len(),
        0,
        0,
        0,
        0,
        name_size,
        0,
    ] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(contents);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_directories_before_their_files_and_ends_with_the_trailer() {
        let mut tree = Tree::default();
        tree.file("/lib/a/b.so", b"12345".to_vec());
        tree.file("/init", b"#!".to_vec());
        tree.link("/bin", "usr/bin");
        let bytes = tree.bytes();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let places: Vec<_> = [
            "bin\0",
            "init\0",
            "lib\0",
            "lib/a\0",
            "lib/a/b.so\0",
            TRAILER,
        ]
        .iter()
        .map(|name| text.find(name).unwrap())
        .collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), places.len());
    }

    #[test]
    fn a_header_is_of_110_bytes_and_everything_is_aligned() {
        let mut archive = Vec::new();
        append(&mut archive, 7, "ab", PROGRAM, b"x");
        let text = String::from_utf8(archive).unwrap();
        assert!(text.starts_with("07070100000007000081ed"), "{text}");
        assert_eq!(&text[110..116], "ab\0\0\0\0".get(..6).unwrap());
        assert_eq!(text.len(), 120);
        assert_eq!(&text[116..], "x\0\0\0");
    }
}
