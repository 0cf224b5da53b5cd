//! Programs of this machine for a guest, with their libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::programs;

/// The libraries of a program; a static one has none.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = programs::command("ldd")?
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run ldd")?;
    // ldd fails for a static program and lists no library.
    parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} does not run here", program.display()))
}

/// The file of a program; `packages` ensures that it exists.
pub fn path(name: &str) -> Result<PathBuf> {
    programs::find(name).with_context(|| format!("{name} is not installed"))
}

fn parse(ldd: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in ldd.lines() {
        if line.contains("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        // `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux.so.2 (0x…)`; the vDSO has no path.
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            libraries.push(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_with_the_loader_and_without_the_kernels_own() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f7b)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f7c)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(ldd).unwrap(), expected.map(PathBuf::from));
    }

    #[test]
    fn a_static_program_has_none_and_a_missing_one_is_an_error() {
        assert!(parse("\tnot a dynamic executable\n").unwrap().is_empty());
        assert!(parse("\tlibx.so.1 => not found\n").is_err());
    }
}
