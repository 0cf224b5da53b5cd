//! The nodes, and the endpoints of one service: listed on demand, never watched. Every agent watching every node would
//! be quadratic: each kubelet updates its node every few minutes at least.

use std::collections::BTreeSet;

use probe_cluster::{object, snapshot::Node};
use probe_model::NamespacedName;

use super::{ApiConnection, ApiRequestError, health::ApiRequestKind};

/// The number of stored nodes: twice the largest supported cluster.
const MAX_NODES: usize = 10_000;

struct NodeListState {
    labels: BTreeSet<String>,
    nodes: Vec<Node>,
}

impl ApiConnection {
    /// The nodes as they are now, with these labels.
    pub async fn nodes(&self, labels: &BTreeSet<String>) -> Result<Vec<Node>, ApiRequestError> {
        let nodes = NodeListState {
            labels: labels.clone(),
            nodes: Vec::new(),
        };
        let path = "/api/v1/nodes?resourceVersion=0";
        let listed = self.list(ApiRequestKind::Nodes, path, nodes, |nodes, object| {
            if nodes.nodes.len() < MAX_NODES {
                let node = object::node(&object, &nodes.labels);
                nodes.nodes.extend(node);
            }
        });
        Ok(listed.await?.state.nodes)
    }

    /// The number of ready endpoints of a service.
    pub async fn ready_endpoints(
        &self,
        service: &NamespacedName,
    ) -> Result<usize, ApiRequestError> {
        let NamespacedName { namespace, name } = service;
        if !(is_name(namespace) && is_name(name)) {
            return Err(ApiRequestError::Refused(format!("{service} is not a name")));
        }
        let mut ready = Err(ApiRequestError::NotFound("endpointslices".to_owned()));
        // v1 exists since Kubernetes 1.21.
        for version in ["v1", "v1beta1"] {
            let path = format!(
                "/apis/discovery.k8s.io/{version}/namespaces/{namespace}/endpointslices\
                 ?resourceVersion=0&labelSelector=kubernetes.io%2Fservice-name%3D{name}"
            );
            let listed = self.list(ApiRequestKind::Endpoints, &path, 0, |ready, slice| {
                *ready += object::ready_endpoints(&slice);
            });
            ready = listed.await.map(|listed| listed.state);
            if !matches!(ready, Err(ApiRequestError::NotFound(_))) {
                break;
            }
        }
        ready
    }
}

/// Whether this can be a part of a path. Names from the API server are not trusted to be.
pub(super) fn is_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    !text.is_empty()
        && text.len() <= 253
        && text != "."
        && text != ".."
        && text.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_parts_of_a_path() {
        for good in ["a", "shop-2", "node-1.example.com"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(254);
        for bad in ["", "..", "a/b", "a?b", "a%2f", "a b", "ä", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
