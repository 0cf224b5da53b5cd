//! Pools and advertisements of every load balancer that is known, as they are: for judging them as a repository's are.

use serde_json::Value;

use super::ApiRequestError;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct PoolObjects {
    /// The objects, each with `apiVersion` and `kind`.
    pub objects: Vec<Value>,
    /// What could not be read: what, and why.
    pub errors: Vec<(&'static str, ApiRequestError)>,
}

#[cfg(feature = "kubernetes")]
mod reading {
    use hyper::Method;
    use serde_json::Value;

    use super::{
        super::{ApiConnection, ApiRequestError, health::ApiRequestKind},
        PoolObjects,
    };

    /// So many objects of a sort are read.
    const MAX_OBJECTS: usize = 10_000;

    /// Lists: where each is, and what it is a list of. Of several in a row the first that is there is enough.
    const LISTS: [&[(&str, &str, &str)]; 5] = [
        &[(
            "/apis/metallb.io/v1beta1/ipaddresspools",
            "metallb.io/v1beta1",
            "IPAddressPool",
        )],
        &[(
            "/apis/metallb.io/v1beta1/addresspools",
            "metallb.io/v1beta1",
            "AddressPool",
        )],
        &[(
            "/apis/metallb.io/v1beta1/l2advertisements",
            "metallb.io/v1beta1",
            "L2Advertisement",
        )],
        &[(
            "/apis/metallb.io/v1beta1/bgpadvertisements",
            "metallb.io/v1beta1",
            "BGPAdvertisement",
        )],
        &[
            (
                "/apis/cilium.io/v2/ciliumloadbalancerippools",
                "cilium.io/v2",
                "CiliumLoadBalancerIPPool",
            ),
            (
                "/apis/cilium.io/v2alpha1/ciliumloadbalancerippools",
                "cilium.io/v2alpha1",
                "CiliumLoadBalancerIPPool",
            ),
        ],
    ];

    /// Where kube-vip's cloud provider has its pools.
    const KUBE_VIP: &str = "/api/v1/namespaces/kube-system/configmaps/kubevip";

    impl ApiConnection {
        /// Pools and advertisements, as they are now. What is not installed is none of them.
        pub async fn pool_objects(&self) -> PoolObjects {
            let mut read = PoolObjects::default();
            for versions in LISTS {
                for &(path, version, kind) in versions {
                    match self.pool_list(path).await {
                        Ok(objects) => {
                            let named = objects
                                .into_iter()
                                .map(|object| named(object, version, kind));
                            read.objects.extend(named);
                            break;
                        }
                        Err(ApiRequestError::NotFound(_)) => {}
                        Err(error) => {
                            read.errors.push((kind, error));
                            break;
                        }
                    }
                }
            }
            match self
                .call(ApiRequestKind::List, Method::GET, KUBE_VIP, None)
                .await
            {
                Ok(object) => read.objects.push(named(object, "v1", "ConfigMap")),
                // ConfigMaps are nothing that everybody may read, and most clusters have no such one.
                Err(ApiRequestError::NotFound(_) | ApiRequestError::Forbidden(_)) => {}
                Err(error) => read.errors.push(("ConfigMap kubevip", error)),
            }
            read
        }

        async fn pool_list(&self, path: &str) -> Result<Vec<Value>, ApiRequestError> {
            let path = format!("{path}?resourceVersion=0");
            let listed = self.list(
                ApiRequestKind::List,
                &path,
                Vec::new(),
                |objects, object| {
                    if objects.len() < MAX_OBJECTS {
                        objects.push(object);
                    }
                },
            );
            Ok(listed.await?.state)
        }
    }

    /// The objects of some lists do not say what they are.
    fn named(mut object: Value, version: &str, kind: &str) -> Value {
        if let Some(fields) = object.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| version.into());
            fields.entry("kind").or_insert_with(|| kind.into());
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
                metadata.remove("annotations");
            }
        }
        object
    }
}
