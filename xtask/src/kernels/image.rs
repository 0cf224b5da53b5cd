//! The boot image of a guest: a kernel and an initramfs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{cpio::Tree, debian::Kernel, modules, name_of, programs};
use crate::host;

const INIT: &str = include_str!("init.sh");

/// The programs for the tests and the init process.
const TOOLS: [&str; 3] = ["busybox", "ip", "tc"];

/// Mount points, and directories that the tests write to.
const DIRECTORIES: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var"];

/// A kernel and the file with its initramfs.
pub struct Image {
    pub kernel: PathBuf,
    pub tree: PathBuf,
}

impl Image {
    /// Builds the image with everything that the test binaries need on this kernel.
    pub fn new(kernel: &Kernel, tests: &[PathBuf]) -> Result<Self> {
        let tree = tree(kernel, tests)?;
        let directory = host::target_dir().join("guests");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(format!("{}.cpio", kernel.version()));
        fs::write(&path, tree.bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            kernel: kernel.bootable()?.to_owned(),
            tree: path,
        })
    }
}

fn tree(kernel: &Kernel, tests: &[PathBuf]) -> Result<Tree> {
    let mut tree = Tree::default();
    for directory in DIRECTORIES {
        tree.directory(directory);
    }
    tree.link("/var/run", "/run");
    tree.file("/init", INIT.into());
    add_program(&mut tree, "/bin/probe", &host::probe())?;
    for tool in TOOLS {
        add_program(&mut tree, &format!("/bin/{tool}"), &programs::path(tool)?)?;
    }
    for test in tests {
        add_program(&mut tree, &format!("/tests/{}", name_of(test)), test)?;
    }
    let mut order = String::new();
    for module in modules::of(kernel)? {
        order.push_str(&module.name);
        order.push('\n');
        tree.file(format!("/modules/{}", module.name), module.contents);
    }
    tree.file("/modules/order", order.into());
    Ok(tree)
}

fn add_program(tree: &mut Tree, path: &str, program: &Path) -> Result<()> {
    tree.file(path, read(program)?);
    for library in programs::libraries(program)? {
        tree.file(&library, read(&library)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
