//! A minimal client of the Kubernetes API.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};

use super::server::SERVER;
use crate::{
    host::Host,
    http::{self, Response},
};

/// A client of an API server.
#[derive(Debug)]
pub struct Api<'a> {
    host: &'a Host,
    tls: Arc<ClientConfig>,
    token: String,
}

/// A response of the API server.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// The JSON body.
    pub body: Value,
}

impl ApiResponse {
    /// Returns the body if the request succeeded.
    pub fn success(self) -> anyhow::Result<Value> {
        ensure!(self.status < 300, "{}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl<'a> Api<'a> {
    pub(super) fn new(host: &'a Host, tls: Arc<ClientConfig>, token: &str) -> Self {
        Self {
            host,
            tls,
            token: token.to_owned(),
        }
    }

    /// Sends a GET request whose response is text.
    pub fn get_text(&self, path: &str) -> anyhow::Result<Response> {
        self.send("GET", path, "application/json", "")
    }

    /// Sends a GET request for an object or a list.
    pub fn get(&self, path: &str) -> anyhow::Result<ApiResponse> {
        self.request("GET", path, None)
    }

    /// Creates an object.
    pub fn create(&self, object: &Value) -> anyhow::Result<Value> {
        self.request("POST", &collection(object)?, Some(object))?
            .success()
            .with_context(|| format!("cannot create {object}"))
    }

    /// Creates several objects in order.
    pub fn create_all<'o>(
        &self,
        objects: impl IntoIterator<Item = &'o Value>,
    ) -> anyhow::Result<()> {
        objects
            .into_iter()
            .try_for_each(|object| self.create(object).map(drop))
    }

    /// Applies a JSON merge patch to an object.
    pub fn patch(&self, object: &Value, patch: &Value) -> anyhow::Result<Value> {
        self.merge(&object_path(object)?, patch)
    }

    /// Applies a JSON merge patch to the status subresource.
    pub fn patch_status(&self, object: &Value, status: &Value) -> anyhow::Result<Value> {
        let path = format!("{}/status", object_path(object)?);
        self.merge(&path, &json!({ "status": status }))
    }

    /// Sets the addresses in the status of a Service of type `LoadBalancer`, as a controller does.
    pub fn assign(&self, service: &Value, addresses: &[&str]) -> anyhow::Result<()> {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        self.patch_status(service, &json!({ "loadBalancer": { "ingress": ingress } }))
            .map(drop)
    }

    /// Reads the current object.
    pub fn read(&self, object: &Value) -> anyhow::Result<Value> {
        self.get(&object_path(object)?)?.success()
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> anyhow::Result<()> {
        self.request("DELETE", &object_path(object)?, None)?
            .success()
            .map(drop)
    }

    /// Sends a request with any method.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<ApiResponse> {
        let body = body.map(Value::to_string).unwrap_or_default();
        response(&self.send(method, path, "application/json", &body)?)
    }

    fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        let kind = "application/merge-patch+json";
        response(&self.send("PATCH", path, kind, &patch.to_string())?)?
            .success()
            .with_context(|| format!("cannot change {path}"))
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> anyhow::Result<Response> {
        let stream = self.host.enter(|| http::connect(SERVER))?;
        http::set_deadlines(&stream)?;
        let name = ServerName::IpAddress(SERVER.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name)?;
        let token = format!("Bearer {}", self.token);
        http::request(
            StreamOwned::new(connection, stream),
            &format!("{method} {path}"),
            &[
                ("Accept", "application/json"),
                ("Authorization", &token),
                ("Content-Type", kind),
            ],
            body,
        )
    }
}

fn response(response: &Response) -> anyhow::Result<ApiResponse> {
    let body =
        serde_json::from_str(&response.body).with_context(|| format!("not JSON: {response:?}"))?;
    Ok(ApiResponse {
        status: response.status,
        body,
    })
}

/// The API path of the collection that contains an object.
fn collection(object: &Value) -> anyhow::Result<String> {
    let version = text(object, "/apiVersion")?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = match object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
    {
        Some(namespace) => format!("/namespaces/{namespace}"),
        None => String::new(),
    };
    let kind = text(object, "/kind")?.to_lowercase();
    Ok(format!("/{root}/{version}{namespace}/{}", plural(&kind)))
}

/// The API path of an object.
fn object_path(object: &Value) -> anyhow::Result<String> {
    Ok(format!(
        "{}/{}",
        collection(object)?,
        text(object, "/metadata/name")?
    ))
}

fn plural(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") && !kind.ends_with("status") {
        return kind.to_owned(); // endpoints
    }
    if kind.ends_with('s') {
        return format!("{kind}es");
    }
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in {object}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_object_follows_from_its_kind_and_metadata() {
        let status = json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "ServiceL2Status",
            "metadata": { "namespace": "metallb-system", "name": "l2-1" },
        });
        assert_eq!(
            object_path(&status).unwrap(),
            "/apis/metallb.io/v1beta1/namespaces/metallb-system/servicel2statuses/l2-1"
        );
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } });
        assert_eq!(object_path(&node).unwrap(), "/api/v1/nodes/node-1");
        assert_eq!(plural("endpoints"), "endpoints");
        assert!(object_path(&json!({ "kind": "Node" })).is_err());
    }
}
