//! Manifests as rendered and validated by Helm, kubectl and the Kubernetes schemas.

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

/// A Helm chart.
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

    /// Renders the chart like `helm template`: the text of each template. Values that violate the schema are an
    /// error.
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

    /// The complaints of `helm lint --strict`.
    pub fn lint(&self, values: &Value) -> anyhow::Result<Vec<String>> {
        let report: Value = self.helm(json!({ "do": "lint", "values": values }))?;
        let messages = ["messages", "errors"]
            .iter()
            .filter_map(|part| report[part].as_array())
            .flatten();
        // Severity 1 is informational, for example a missing icon.
        Ok(messages
            .filter(|message| message["severity"].as_u64() != Some(1))
            .map(Value::to_string)
            .collect())
    }

    /// Packs the chart into a directory like `helm package`, with symbolic links resolved. Returns the file.
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
        let output = run_python(HELM, &[], &request.to_string())?;
        serde_json::from_str(&output).context("unexpected output of Helm")
    }
}

/// The `deploy` directory.
pub fn deploy() -> PathBuf {
    workspace().join("deploy")
}

/// Parses the objects in YAML text.
pub fn objects(yaml: &str) -> anyhow::Result<Vec<Value>> {
    valid_objects(yaml, &[])
}

/// Parses the objects in YAML text and validates them against the schemas of these Kubernetes versions.
pub fn valid_objects(yaml: &str, versions: &[&str]) -> anyhow::Result<Vec<Value>> {
    let objects = run_python(OBJECTS, versions, yaml)?;
    serde_json::from_str(&objects).context("the output contains no objects")
}

/// The YAML output of `kubectl kustomize` for a directory.
pub fn kustomize(directory: &Path) -> anyhow::Result<String> {
    output_of(
        Command::new(kubectl()?)
            .arg("kustomize")
            .arg(directory)
            // The command must not use the kubeconfig of the user.
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
    // The tools read their whole input before they write output.
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
    String::from_utf8(output.stdout).context("the output is not UTF-8")
}
