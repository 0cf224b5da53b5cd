//! Manifests as the tools of their users read them: Helm, kubectl, and Kubernetes's own schemas.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::tool_cache::{kubectl, python, workspace};

const HELM: &str = include_str!("../tools/helm.py");
const OBJECTS: &str = include_str!("../tools/objects.py");

/// A Helm chart, and Helm to do something with it.
#[derive(Debug)]
pub struct Chart {
    directory: PathBuf,
}

impl Chart {
    /// The chart of this repository.
    pub fn of_this_repository() -> Self {
        Self {
            directory: deploy().join("helm/arp-monitor"),
        }
    }

    /// What `helm template` makes of it: the text of each template. Values that its schema does not allow are
    /// an error.
    pub fn render(
        &self,
        name: &str,
        namespace: &str,
        values: &Value,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let rendered: BTreeMap<String, String> = self.helm(json!({
            "do": "render",
            "values": values,
            "name": name,
            "namespace": namespace,
        }))?;
        Ok(rendered
            .into_iter()
            .filter_map(|(path, text)| {
                let (_, template) = path.rsplit_once('/')?;
                (!text.trim().is_empty()).then(|| (template.to_owned(), text))
            })
            .collect())
    }

    /// What `helm lint --strict` has to say against it.
    pub fn lint(&self, values: &Value) -> anyhow::Result<Vec<String>> {
        let report: Value = self.helm(json!({ "do": "lint", "values": values }))?;
        let messages = ["messages", "errors"]
            .iter()
            .filter_map(|part| report[part].as_array())
            .flatten();
        // 1 is "information": that a chart has no icon.
        Ok(messages
            .filter(|message| message["severity"].as_u64() != Some(1))
            .map(Value::to_string)
            .collect())
    }

    /// Packs it into a directory, as `helm package` does, with what its symbolic links lead to. Returns the file.
    pub fn package(&self, destination: &Path) -> anyhow::Result<PathBuf> {
        #[derive(serde::Deserialize)]
        struct Package {
            path: PathBuf,
        }
        let package: Package = self.helm(json!({ "do": "package", "destination": destination }))?;
        Ok(package.path)
    }

    fn helm<T: DeserializeOwned>(&self, mut request: Value) -> anyhow::Result<T> {
        request["chart"] = json!(self.directory);
        let answer = run_python(HELM, &[], &request.to_string())?;
        serde_json::from_str(&answer).context("Helm's answer is not what was asked for")
    }
}

/// The directory of everything that is deployed.
pub fn deploy() -> PathBuf {
    workspace().join("deploy")
}

/// The objects of YAML text.
pub fn objects(yaml: &str) -> anyhow::Result<Vec<Value>> {
    valid_objects(yaml, &[])
}

/// The objects of YAML text, which Kubernetes's schemas of these versions allow.
pub fn valid_objects(yaml: &str, versions: &[&str]) -> anyhow::Result<Vec<Value>> {
    let objects = run_python(OBJECTS, versions, yaml)?;
    serde_json::from_str(&objects).context("these are no objects")
}

/// What `kubectl kustomize` makes of a directory: YAML text.
pub fn kustomize(directory: &Path) -> anyhow::Result<String> {
    output_of(
        Command::new(kubectl()?)
            .arg("kustomize")
            .arg(directory)
            // Nobody's cluster is asked for anything.
            .env("KUBECONFIG", "/dev/null"),
        "",
    )
}

fn run_python(script: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    output_of(
        Command::new(python()?)
            .args(["-I", "-c", script])
            .args(arguments.iter().map(OsStr::new)),
        input,
    )
}

fn output_of(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let program = PathBuf::from(command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // All of them read their input before they write anything.
    child
        .stdin
        .take()
        .context("the child has no standard input")?
        .write_all(input.as_bytes())
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("what it says is no text")
}
