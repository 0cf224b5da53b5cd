//! A container that is started from the image and a pod's specification as a node would start it.
//!
//! This module does what Kubernetes and the container runtime do with a specification, but only for the fields that
//! the DaemonSet of this project uses. An unknown field is an error, so that no test passes for a container that
//! differs from the DaemonSet's.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    host::Host,
    http::Response,
    process::{Finished, Process},
    seccomp,
    tool_cache::image_layout,
    wait::eventually,
};

/// Timeout for the runtime and the BPF verifier on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Fields that the tests check separately, or that have no meaning outside a cluster.
const IGNORED_FIELDS: [&str; 6] = [
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
];

/// A container that runs in the network namespace of a host.
#[derive(Debug)]
pub struct Container<'a> {
    // Declared before `directory`, so that the process ends before the directory is removed.
    process: Process,
    remover: Remover,
    host: &'a Host,
    directory: TempDir,
}

/// Privileges that a test withholds although the specification requests them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Withheld<'a> {
    /// Capabilities by their names in a specification, for example `NET_ADMIN`.
    pub capabilities: &'a [&'a str],
    /// System calls that the seccomp profile denies in addition.
    pub system_calls: &'a [&'a str],
}

/// Removes a container and all its processes on drop.
#[derive(Debug)]
struct Remover {
    state: PathBuf,
    id: String,
}

impl Host {
    /// Starts the only container of a pod. `objects` are the objects that the pod may reference, `address` is the
    /// address of the node, and `withheld` lists privileges that the container does not get.
    pub fn container(
        &self,
        pod: &Value,
        objects: &[Value],
        address: &str,
        withheld: Withheld,
    ) -> anyhow::Result<Container<'_>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = TempDir::new()?;
        let bundle = directory.path().join("bundle");
        unpack(&bundle)?;
        let config = bundle.join("config.json");
        let mut runtime: Value = serde_json::from_str(&fs::read_to_string(&config)?)?;
        ensure!(
            pod["hostNetwork"] == true,
            "the pod does not use the host network"
        );
        let [container] = pod["containers"].as_array().map_or(&[][..], Vec::as_slice) else {
            bail!("the pod must have exactly one container");
        };
        let volumes = volumes(pod, objects, directory.path())?;
        configure(&mut runtime, container, &volumes, address, withheld)?;
        runtime["linux"]["namespaces"] = json!([
            { "type": "pid" },
            { "type": "ipc" },
            { "type": "mount" },
            { "type": "network", "path": format!("/var/run/netns/{}", self.namespace()) },
        ]);
        // The container uses the node's host name, as it uses the node's network.
        if let Some(runtime) = runtime.as_object_mut() {
            runtime.remove("hostname");
        }
        fs::write(&config, runtime.to_string())?;

        let remover = Remover {
            state: directory.path().join("state"),
            id: format!(
                "{}-{}",
                self.namespace(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        // The runtime does not run in the host's namespace: it would not find the cgroups of the machine there.
        let mut run = remover.command(&["run", "--bundle"]);
        run.arg(bundle).arg(&remover.id);
        let title = format!("container on {}", self.name());
        let process = Process::spawn(title, run)?;
        Ok(Container {
            process,
            remover,
            host: self,
            directory,
        })
    }
}

impl Container<'_> {
    /// The process of the runtime, with the output of the container.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the container exits and returns its status and output.
    pub fn finish(self, within: Duration) -> anyhow::Result<Finished> {
        let Self {
            process,
            remover: _remover,
            ..
        } = self;
        process.finish(within)
    }

    /// The directory behind a `hostPath` volume.
    pub fn host_path(&self, volume: &str) -> PathBuf {
        self.directory.path().join(volume)
    }

    /// Waits until the daemon in the container is ready.
    pub fn wait_until_ready(&self, server: SocketAddr) -> anyhow::Result<()> {
        eventually("the container to be ready", READY_DEADLINE, || {
            if self.process.has_ended() {
                bail!("the container ended:\n{}", self.process.written_output());
            }
            let response = self.get(server, "/readyz");
            Ok(response
                .is_ok_and(|response| response.status == 200)
                .then_some(()))
        })
    }

    /// Sends an HTTP GET request to the daemon in the container.
    pub fn get(&self, server: SocketAddr, path: &str) -> anyhow::Result<Response> {
        self.host.http_get(server, path)
    }

    /// Runs a command in the container, as `kubectl exec` does.
    pub fn exec(&self, words: &[&str]) -> anyhow::Result<Process> {
        let mut exec = self.remover.command(&["exec", &self.remover.id]);
        exec.args(words);
        let title = format!(
            "in the container on {}: {}",
            self.host.name(),
            words.join(" ")
        );
        Process::spawn(title, exec)
    }
}

impl Remover {
    fn command(&self, words: &[&str]) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(&self.state).args(words);
        runc
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        // An error only means that the container no longer exists.
        let _ = self
            .command(&["delete", "--force", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Unpacks the image into a runtime bundle.
fn unpack(bundle: &Path) -> anyhow::Result<()> {
    let layout = image_layout()?;
    let index = fs::read_to_string(layout.join("index.json")).with_context(|| {
        format!(
            "there is no image in {}: run `cargo xtask image`",
            layout.display()
        )
    })?;
    let index: Value = serde_json::from_str(&index)?;
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .context("the image has no name")?;
    let output = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:{name}", layout.display()))
        .arg(bundle)
        .output()
        .context("cannot run umoci")?;
    ensure!(
        output.status.success(),
        "umoci: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Creates a directory for each volume of the pod.
fn volumes(
    pod: &Value,
    objects: &[Value],
    directory: &Path,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut volumes = Vec::new();
    for volume in pod["volumes"]
        .as_array()
        .context("the pod has no volumes")?
    {
        let name = text(volume, "name")?;
        let directory = directory.join(name);
        fs::create_dir(&directory)?;
        if let Some(source) = volume.get("configMap") {
            let map = objects
                .iter()
                .find(|one| one["kind"] == "ConfigMap" && one["metadata"]["name"] == source["name"])
                .with_context(|| format!("no ConfigMap {source}"))?;
            for (file, contents) in map["data"].as_object().context("the ConfigMap is empty")? {
                fs::write(directory.join(file), contents.as_str().unwrap_or_default())?;
            }
        } else {
            ensure!(
                volume["hostPath"]["type"] == "DirectoryOrCreate",
                "a volume of an unknown kind: {volume}"
            );
        }
        volumes.push((name.to_owned(), directory));
    }
    Ok(volumes)
}

fn configure(
    runtime: &mut Value,
    container: &Value,
    volumes: &[(String, PathBuf)],
    address: &str,
    withheld: Withheld,
) -> anyhow::Result<()> {
    let mut security = Security::default();
    let process = &mut runtime["process"];
    process["terminal"] = json!(false);
    let mut mounts = Vec::new();
    for (field, value) in container
        .as_object()
        .context("the container is not an object")?
    {
        match field.as_str() {
            "image" => {}
            "args" => {
                let entrypoint = process["args"][0].clone();
                let arguments = value.as_array().context("arguments are a list")?.iter();
                process["args"] = [entrypoint]
                    .into_iter()
                    .chain(arguments.map(|word| {
                        json!(
                            word.as_str()
                                .unwrap_or_default()
                                .replace("$(HOST_IP)", address)
                        )
                    }))
                    .collect();
            }
            "env" => {
                let field = |path| json!({ "fieldRef": { "fieldPath": path } });
                let known = json!([
                    { "name": "HOST_IP", "valueFrom": field("status.hostIP") },
                    { "name": "ARP_MONITOR_NODE_NAME", "valueFrom": field("spec.nodeName") },
                ]);
                ensure!(*value == known, "an unsupported environment: {value}");
                if let Some(environment) = process["env"].as_array_mut() {
                    environment.push(json!(format!("HOST_IP={address}")));
                    environment.push(json!("ARP_MONITOR_NODE_NAME=node-1"));
                }
            }
            "securityContext" => security = secure(process, value, withheld)?,
            "volumeMounts" => {
                for mount in value.as_array().context("mounts are a list")? {
                    let name = text(mount, "name")?;
                    let (_, source) = volumes
                        .iter()
                        .find(|(volume, _)| volume == name)
                        .with_context(|| format!("no volume {name}"))?;
                    let access = if mount["readOnly"] == true {
                        "ro"
                    } else {
                        "rw"
                    };
                    mounts.push(json!({
                        "destination": text(mount, "mountPath")?,
                        "type": "bind",
                        "source": source,
                        "options": ["rbind", "rprivate", access],
                    }));
                }
            }
            known if IGNORED_FIELDS.contains(&known) => {}
            unknown => bail!("the field `{unknown}` is not supported by the tests"),
        }
    }
    runtime["mounts"]
        .as_array_mut()
        .context("the bundle has no mounts")?
        .extend(mounts);
    runtime["root"]["readonly"] = json!(security.read_only);
    runtime["linux"]["seccomp"] = security.seccomp;
    Ok(())
}

/// The parts of a security context that do not belong to the process.
#[derive(Default)]
struct Security {
    /// Whether the root file system is read-only.
    read_only: bool,
    /// The seccomp profile in the format of the runtime; `null` for none.
    seccomp: Value,
}

/// Applies a security context as a Kubernetes runtime does: the capabilities go into every set except the
/// inheritable and the ambient set.
fn secure(process: &mut Value, context: &Value, withheld: Withheld) -> anyhow::Result<Security> {
    let mut security = Security::default();
    let mut capabilities = Vec::new();
    let mut profile = None;
    for (field, value) in context
        .as_object()
        .context("a security context is an object")?
    {
        match field.as_str() {
            "allowPrivilegeEscalation" => {
                process["noNewPrivileges"] = json!(!value.as_bool().unwrap_or(true));
            }
            "capabilities" => {
                ensure!(
                    value["drop"] == json!(["ALL"]),
                    "the container must drop all capabilities"
                );
                let added = value["add"]
                    .as_array()
                    .context("the container adds no capabilities")?
                    .iter();
                capabilities.extend(
                    added
                        .filter_map(Value::as_str)
                        .filter(|name| !withheld.capabilities.contains(name))
                        .map(|name| format!("CAP_{name}")),
                );
                process["capabilities"] = json!({
                    "bounding": capabilities,
                    "effective": capabilities,
                    "permitted": capabilities,
                    "inheritable": [],
                    "ambient": [],
                });
            }
            "privileged" => ensure!(*value == false, "the container is privileged"),
            "readOnlyRootFilesystem" => security.read_only = *value == true,
            "runAsGroup" => process["user"]["gid"] = value.clone(),
            "runAsUser" => process["user"]["uid"] = value.clone(),
            "seccompProfile" => profile = Some(value),
            unknown => bail!("the field `{unknown}` is not supported by the tests"),
        }
    }
    let profile = profile.context("the container requests no seccomp profile")?;
    ensure!(
        *profile == json!({ "type": "RuntimeDefault" }),
        "the seccomp profile {profile} is not supported by the tests"
    );
    security.seccomp = seccomp::runtime_default(&capabilities, withheld.system_calls);
    Ok(security)
}

fn text<'a>(object: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    object[field]
        .as_str()
        .with_context(|| format!("no `{field}` in {object}"))
}
