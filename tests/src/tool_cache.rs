//! The directory of programs that only tests need and that are not installed.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::daemon::target_directory;

/// Part of the tool cache with Prometheus, Alertmanager and promtool, unpacked from their packages.
pub const PROMETHEUS: &str = "prometheus";

/// Part of the tool cache with the tools that check the dashboard.
pub const DASHBOARD: &str = "dashboard";

/// Part of the tool cache with kube-apiserver and etcd. The version is in the name, so that a new version is built
/// beside an old one.
pub const KUBERNETES: &str = "kubernetes-1.20";

/// The pinned versions of the Python packages.
pub const PYTHON_REQUIREMENTS: &str = include_str!("../tools/requirements.txt");

/// The tool cache: `$PROBE_TOOL_CACHE`, or a directory in the user's cache. It is outside of the workspace, so that
/// a clean clone does not repeat builds and downloads of several minutes.
pub fn tool_cache() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    variable("PROBE_TOOL_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("arp-monitor")))
        .or_else(|| Some(variable("HOME")?.join(".cache/arp-monitor")))
        .context("no directory for the tool cache: set PROBE_TOOL_CACHE")
}

/// The path of `prometheus`, `promtool` or `prometheus-alertmanager`: in the tool cache, or installed.
pub fn prometheus_program(name: &str) -> anyhow::Result<PathBuf> {
    let cached = tool_cache()?.join(PROMETHEUS).join("usr/bin").join(name);
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).map(|directory| directory.join(name));
    match [cached]
        .into_iter()
        .chain(installed)
        .find(|file| file.is_file())
    {
        Some(program) => Ok(program),
        None => bail!("there is no {name}: run `cargo xtask setup`"),
    }
}

/// The directory with the `node_modules` of the dashboard check.
pub fn dashboard_tools() -> anyhow::Result<PathBuf> {
    let directory = tool_cache()?.join(DASHBOARD);
    if !directory.join("node_modules").is_dir() {
        bail!("the tools to check the dashboard are missing: run `cargo xtask setup`");
    }
    Ok(directory)
}

/// The path of `kube-apiserver` or `etcd` in the tool cache.
pub fn kubernetes_program(name: &str) -> anyhow::Result<PathBuf> {
    existing(&tool_cache()?.join(KUBERNETES).join("bin").join(name))
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The virtual environment of the Python tools.
pub fn python_environment() -> anyhow::Result<PathBuf> {
    Ok(tool_cache()?.join("python"))
}

/// The output directory of `cargo xtask dist`.
pub fn distribution() -> anyhow::Result<PathBuf> {
    Ok(target_directory()?.join("dist"))
}

/// The output directory of `cargo xtask image`: an OCI image layout with one image.
pub fn image_layout() -> anyhow::Result<PathBuf> {
    Ok(target_directory()?.join("image/oci"))
}

/// The path of a program from a Python package, such as `node`.
pub fn python_tool(name: &str) -> anyhow::Result<PathBuf> {
    existing(&python_environment()?.join("bin").join(name))
}

/// The Python interpreter with the packages that validate and render the manifests.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    python_tool("python")
}

/// kubectl from the tool cache, or the installed one.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    // Without apt, kubectl must be installed.
    Ok(existing(&tool_cache()?.join("kubectl/usr/bin/kubectl"))
        .unwrap_or_else(|_| "kubectl".into()))
}

fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        path.is_file(),
        "there is no {}: run `cargo xtask setup`",
        path.display()
    );
    Ok(path.to_owned())
}
