//! The modules that a guest loads, in the order of their dependencies.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::debian::Kernel;
use crate::programs;

/// The modules for the networks of the tests, and for TC without TCX.
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

/// The decompressor of a module by its file extension.
const DECOMPRESSORS: [(&str, &str); 3] = [("gz", "gzip"), ("xz", "xz"), ("zst", "zstd")];

/// An uncompressed module.
pub struct Module {
    pub name: String,
    pub contents: Vec<u8>,
}

/// All wanted modules that are not built into the kernel.
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

/// The wanted modules after their dependencies. `read` returns nothing for a built-in module.
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

/// The dependencies of a module: `depends=` in its `.modinfo` section, a list of NUL-terminated strings.
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

/// Whether the text of `modules.builtin` lists the module.
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

    /// 8021q depends on garp and mrp, garp on stp, and stp on llc; mrp is built in.
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
    fn dependencies_of_a_module_are_loaded_once_and_first() {
        let modules = in_order(&["garp", "8021q"], read).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "garp", "8021q"]);
    }

    #[test]
    fn a_missing_module_is_an_error() {
        assert!(in_order(&["nonsense"], read).is_err());
    }

    #[test]
    fn built_in_modules_are_recognised_in_both_spellings() {
        let list = "kernel/drivers/virtio/virtio-pci.ko\nkernel/net/core/failover.ko\n";
        assert!(is_listed(list, "virtio_pci"));
        assert!(is_listed(list, "failover"));
        assert!(!is_listed(list, "virtio"));
    }
}
