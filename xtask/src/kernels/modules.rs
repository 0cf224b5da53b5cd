//! The modules that a guest loads, in an order in which each finds what it needs.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::debian::Kernel;
use crate::programs;

/// What the tests make their networks of, and what TC needs where there is no TCX.
const WANTED: [&str; 9] = [
    "8021q",
    "bonding",
    "bridge",
    "cls_bpf",
    "sch_ingress",
    "veth",
    "virtio_net",
    "virtio_pci",
    "vmxnet3",
];

/// How to decompress a module, by how its name ends.
const DECOMPRESSORS: [(&str, &str); 3] = [("gz", "gzip"), ("xz", "xz"), ("zst", "zstd")];

/// A module, ready to be loaded.
pub struct Module {
    pub name: String,
    pub contents: Vec<u8>,
}

/// All modules that are wanted and are not built into the kernel.
pub fn of(kernel: &Kernel) -> Result<Vec<Module>> {
    let built_in = kernel.built_in()?;
    in_order(&WANTED, |name| {
        if let Some(path) = kernel.module(name) {
            return decompress(path).map(Some);
        }
        ensure!(
            is_listed(&built_in, name),
            "Linux {} has no module {name}",
            kernel.version()
        );
        Ok(None)
    })
}

/// What is wanted with all that it needs, and that first. `read` has nothing for what is built in.
fn in_order(
    wanted: &[&str],
    read: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Module>> {
    fn add(
        name: &str,
        read: &impl Fn(&str) -> Result<Option<Vec<u8>>>,
        modules: &mut Vec<Module>,
    ) -> Result<()> {
        if modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let Some(contents) = read(name)? else {
            return Ok(());
        };
        for needed in needed_by(&contents) {
            add(&needed, read, modules)?;
        }
        modules.push(Module {
            name: name.to_owned(),
            contents,
        });
        Ok(())
    }
    let mut modules = Vec::new();
    for name in wanted {
        add(name, &read, &mut modules)?;
    }
    Ok(modules)
}

/// What a module says of itself that it needs: `depends=` in its `.modinfo` section, which is a list of
/// strings with a zero byte after each.
fn needed_by(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// Whether the text of `modules.builtin` has the module.
fn is_listed(built_in: &str, module: &str) -> bool {
    built_in
        .lines()
        .filter_map(|path| path.rsplit('/').next()?.strip_suffix(".ko"))
        .any(|name| name.replace('-', "_") == module)
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let decompressor = DECOMPRESSORS
        .iter()
        .find_map(|&(of, program)| (ending == Some(of)).then_some(program));
    let Some(program) = decompressor else {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    };
    let output = programs::command(program)?
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {program}: install it and try again"))?;
    ensure!(
        output.status.success(),
        "{program} cannot decompress {}",
        path.display()
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8021q needs garp and mrp; garp needs stp, which needs llc; mrp is built in.
    fn read(name: &str) -> Result<Option<Vec<u8>>> {
        let needs = match name {
            "8021q" => "mrp,garp",
            "garp" => "stp",
            "stp" => "llc",
            "llc" => "",
            "mrp" => return Ok(None),
            other => anyhow::bail!("unexpected: {other}"),
        };
        Ok(Some(
            format!("\u{1}license=GPL\0depends={needs}\0name=x\0").into_bytes(),
        ))
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let modules = in_order(&["garp", "8021q"], read).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "garp", "8021q"]);
    }

    #[test]
    fn what_is_nowhere_is_an_error() {
        assert!(in_order(&["nonsense"], read).is_err());
    }

    #[test]
    fn what_is_built_in_is_recognised_in_either_spelling() {
        let list = "kernel/drivers/virtio/virtio-pci.ko\nkernel/net/core/failover.ko\n";
        assert!(is_listed(list, "virtio_pci"));
        assert!(is_listed(list, "failover"));
        assert!(!is_listed(list, "virtio"));
    }
}
