//! Where programs are kept that tests need and nobody wants installed.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::daemon::target_directory;

/// Part of the tool cache with Prometheus, Alertmanager and promtool, unpacked from their packages.
pub const PROMETHEUS: &str = "prometheus";

/// Part of the tool cache with what checks the dashboard.
pub const DASHBOARD: &str = "dashboard";

/// Part of the tool cache with an API server of Kubernetes and its etcd. With the version, so that another one is
/// built where an old one is kept.
pub const KUBERNETES: &str = "kubernetes-1.20";

/// The pinned versions of what is installed from Python's package index.
pub const PYTHON_REQUIREMENTS: &str = include_str!("../tools/requirements.txt");

/// The directory: `$PROBE_TOOL_CACHE`, or a part of the user's cache. Outside of the workspace, so that a clean
/// clone does not pay again for what costs minutes to build or fetch.
pub fn tool_cache() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    variable("PROBE_TOOL_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("arp-monitor")))
        .or_else(|| Some(variable("HOME")?.join(".cache/arp-monitor")))
        .context("no place to keep tools in: set PROBE_TOOL_CACHE to a directory")
}

/// `prometheus`, `promtool` or `prometheus-alertmanager`: the one in the tool cache, or one that is installed.
pub fn prometheus_program(name: &str) -> anyhow::Result<PathBuf> {
    let kept = tool_cache()?.join(PROMETHEUS).join("usr/bin").join(name);
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).map(|directory| directory.join(name));
    match [kept]
        .into_iter()
        .chain(installed)
        .find(|file| file.is_file())
    {
        Some(program) => Ok(program),
        None => bail!("there is no {name}: run `cargo xtask setup`"),
    }
}

/// The directory with the `node_modules` that check the dashboard.
pub fn dashboard_tools() -> anyhow::Result<PathBuf> {
    let directory = tool_cache()?.join(DASHBOARD);
    if !directory.join("node_modules").is_dir() {
        bail!("nothing to check a dashboard with: run `cargo xtask setup`");
    }
    Ok(directory)
}

/// `kube-apiserver` or `etcd`, from the tool cache.
pub fn kubernetes_program(name: &str) -> anyhow::Result<PathBuf> {
    existing(&tool_cache()?.join(KUBERNETES).join("bin").join(name))
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The environment of Python's tools, or where it belongs.
pub fn python_environment() -> anyhow::Result<PathBuf> {
    Ok(tool_cache()?.join("python"))
}

/// Where `cargo xtask dist` leaves what is given out.
pub fn distribution() -> anyhow::Result<PathBuf> {
    Ok(target_directory()?.join("dist"))
}

/// Where `cargo xtask image` leaves the image: a directory in OCI's layout, with one image in it.
pub fn image_layout() -> anyhow::Result<PathBuf> {
    Ok(target_directory()?.join("image/oci"))
}

/// A program that a package of Python's index brings, such as `node`.
pub fn python_tool(name: &str) -> anyhow::Result<PathBuf> {
    existing(&python_environment()?.join("bin").join(name))
}

/// The Python that has what the manifests are judged and rendered with.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    python_tool("python")
}

/// The kubectl of the cache, or else the machine's.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    // On a system without apt, an installed one has to do.
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
