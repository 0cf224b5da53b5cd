//! A container, from the image and a pod's specification, as a node would run it.
//!
//! What Kubernetes and the runtime between it and runc make of a specification is done here: for the fields that
//! this project's DaemonSet has, and for no others. A field that is not known here is an error, so that no test holds
//! for another container than the DaemonSet's.

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

/// For the runtime and the verifier, on a machine that is busy with other tests.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// What the tests look at by hand, or what has no meaning outside a cluster.
const LEFT_OUT: [&str; 6] = [
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
];

/// A container on a host of the lab, in the host's network.
#[derive(Debug)]
pub struct Container<'a> {
    // Before its place, which is removed when it is dropped.
    process: Process,
    remover: Remover,
    host: &'a Host,
    place: TempDir,
}

/// What a container does not get although its specification asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Withheld<'a> {
    /// Capabilities, as a specification names them: `NET_ADMIN`.
    pub capabilities: &'a [&'a str],
    /// System calls that the seccomp profile refuses as well.
    pub system_calls: &'a [&'a str],
}

/// Removes a container with all that runs in it.
#[derive(Debug)]
struct Remover {
    state: PathBuf,
    id: String,
}

impl Host {
    /// Runs the one container of a pod. `objects` are those that it may refer to; `address` is that of the node;
    /// `withheld` is what the container does not get although the specification asks for it.
    pub fn container(
        &self,
        pod: &Value,
        objects: &[Value],
        address: &str,
        withheld: Withheld,
    ) -> anyhow::Result<Container<'_>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let place = TempDir::new()?;
        let bundle = place.path().join("bundle");
        unpack(&bundle)?;
        let config = bundle.join("config.json");
        let mut runtime: Value = serde_json::from_str(&fs::read_to_string(&config)?)?;
        ensure!(
            pod["hostNetwork"] == true,
            "the pod has a network of its own"
        );
        let [container] = pod["containers"].as_array().map_or(&[][..], Vec::as_slice) else {
            bail!("the pod has not just one container");
        };
        let volumes = volumes(pod, objects, place.path())?;
        configure(&mut runtime, container, &volumes, address, withheld)?;
        runtime["linux"]["namespaces"] = json!([
            { "type": "pid" },
            { "type": "ipc" },
            { "type": "mount" },
            { "type": "network", "path": format!("/var/run/netns/{}", self.namespace()) },
        ]);
        // It is the node's, as the network is.
        if let Some(runtime) = runtime.as_object_mut() {
            runtime.remove("hostname");
        }
        fs::write(&config, runtime.to_string())?;

        let remover = Remover {
            state: place.path().join("state"),
            id: format!(
                "{}-{}",
                self.namespace(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        // Not by way of the host: there the runtime would not find the machine's cgroups.
        let mut run = remover.command(&["run", "--bundle"]);
        run.arg(bundle).arg(&remover.id);
        let title = format!("container on {}", self.name());
        let process = Process::spawn(title, run)?;
        Ok(Container {
            process,
            remover,
            host: self,
            place,
        })
    }
}

impl Container<'_> {
    /// What runs it, with what is written in it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for its end, and says how it came.
    pub fn finish(self, within: Duration) -> anyhow::Result<Finished> {
        let Self {
            process,
            remover: _remover,
            ..
        } = self;
        process.finish(within)
    }

    /// The directory that is a volume of the host's.
    pub fn host_path(&self, volume: &str) -> PathBuf {
        self.place.path().join(volume)
    }

    /// Waits until it says that it is attached.
    pub fn wait_until_ready(&self, server: SocketAddr) -> anyhow::Result<()> {
        eventually("the container to be ready", READY_DEADLINE, || {
            if self.process.has_ended() {
                bail!("the container ended:\n{}", self.process.said());
            }
            let answer = self.get(server, "/readyz");
            Ok(answer
                .is_ok_and(|answer| answer.status == 200)
                .then_some(()))
        })
    }

    /// Asks it for a page.
    pub fn get(&self, server: SocketAddr, path: &str) -> anyhow::Result<Response> {
        self.host.http_get(server, path)
    }

    /// Runs a command in it, as `kubectl exec` does.
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
        // Nothing is left to do if it is gone.
        let _ = self
            .command(&["delete", "--force", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// The image as a bundle for a runtime.
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

/// A directory for each volume of the pod.
fn volumes(pod: &Value, objects: &[Value], place: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut volumes = Vec::new();
    for volume in pod["volumes"]
        .as_array()
        .context("the pod has no volumes")?
    {
        let name = text(volume, "name")?;
        let directory = place.join(name);
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
        .context("the container is no object")?
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
                ensure!(
                    *value == known,
                    "an environment that is not known here: {value}"
                );
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
            known if LEFT_OUT.contains(&known) => {}
            unknown => bail!("what a node makes of `{unknown}` is not known here"),
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

/// What a security context says of more than the process.
#[derive(Default)]
struct Security {
    /// Nothing can be written to the root.
    read_only: bool,
    /// The seccomp profile in the runtime's form; `null` for none.
    seccomp: Value,
}

/// As a runtime of Kubernetes does: the capabilities are in every set except the inheritable and the ambient one.
fn secure(process: &mut Value, context: &Value, withheld: Withheld) -> anyhow::Result<Security> {
    let mut security = Security::default();
    let mut kept = Vec::new();
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
                ensure!(value["drop"] == json!(["ALL"]), "not all are dropped");
                let added = value["add"].as_array().context("none is added")?.iter();
                kept.extend(
                    added
                        .filter_map(Value::as_str)
                        .filter(|name| !withheld.capabilities.contains(name))
                        .map(|name| format!("CAP_{name}")),
                );
                process["capabilities"] = json!({
                    "bounding": kept,
                    "effective": kept,
                    "permitted": kept,
                    "inheritable": [],
                    "ambient": [],
                });
            }
            "privileged" => ensure!(*value == false, "it is privileged"),
            "readOnlyRootFilesystem" => security.read_only = *value == true,
            "runAsGroup" => process["user"]["gid"] = value.clone(),
            "runAsUser" => process["user"]["uid"] = value.clone(),
            "seccompProfile" => profile = Some(value),
            unknown => bail!("what a node makes of `{unknown}` is not known here"),
        }
    }
    let profile = profile.context("no seccomp profile is asked for")?;
    ensure!(
        *profile == json!({ "type": "RuntimeDefault" }),
        "what a node makes of {profile} is not known here"
    );
    security.seccomp = seccomp::runtime_default(&kept, withheld.system_calls);
    Ok(security)
}

fn text<'a>(object: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    object[field]
        .as_str()
        .with_context(|| format!("no `{field}` in {object}"))
}
