//! Pools and advertisements of all supported load balancers, unparsed: `probe pools` checks them like files.

use serde_json::Value;

use super::ApiRequestError;

/// The objects, and the kinds that could not be read.
#[derive(Debug, Default)]
pub struct PoolObjects {
    /// The objects, each with `apiVersion` and `kind`.
    pub objects: Vec<Value>,
    /// The kinds that could not be read, and why.
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

    /// The largest number of objects of a kind.
    const MAX_OBJECTS: usize = 10_000;

    /// The lists: path, version and kind. Of several versions of a kind the first that exists is used.
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

    /// The pools of kube-vip's cloud provider.
    const KUBE_VIP: &str = "/api/v1/namespaces/kube-system/configmaps/kubevip";

    impl ApiConnection {
        /// Pools and advertisements as they are now. Kinds that are not installed are left out.
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
                // Most agents may not read ConfigMaps, and most clusters have none.
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

    /// Adds version and kind, which the objects of a list may lack.
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
