//! All watched resources, listed once: for commands that print and exit.

use futures_util::future::join_all;
use jiff::Timestamp;
use probe_cluster::{
    resource_store,
    resource_store::ResourceStore,
    snapshot::{ClusterObjects, Freshness, Resource, ResourceState},
};

use super::{ApiConnection, ApiRequestError, health::ApiRequestKind, list::ListResponse};

/// Selects the services of type `LoadBalancer`; servers before 1.31 do not support it.
pub const LOAD_BALANCERS: &str = "fieldSelector=spec.type%3DLoadBalancer";

/// The path of a resource.
pub const fn path(resource: Resource) -> &'static str {
    match resource {
        Resource::Services => "/api/v1/services",
        Resource::IpAddressPools => "/apis/metallb.io/v1beta1/ipaddresspools",
        Resource::L2Advertisements => "/apis/metallb.io/v1beta1/l2advertisements",
        Resource::BgpAdvertisements => "/apis/metallb.io/v1beta1/bgpadvertisements",
        Resource::ServiceL2Statuses => "/apis/metallb.io/v1beta1/servicel2statuses",
    }
}

/// The state of a resource after this error.
pub const fn state_of_error(error: &ApiRequestError) -> ResourceState {
    match error {
        ApiRequestError::NotFound(_) => ResourceState::NotInstalled,
        ApiRequestError::Forbidden(_) | ApiRequestError::Unauthorized(_) => {
            ResourceState::Forbidden
        }
        ApiRequestError::Conflict(_)
        | ApiRequestError::Gone(_)
        | ApiRequestError::Refused(_)
        | ApiRequestError::Unavailable(_)
        | ApiRequestError::Unreachable(_)
        | ApiRequestError::InvalidResponse(_) => ResourceState::NeverRead,
    }
}

impl ApiConnection {
    /// All watched resources as they are now.
    pub async fn objects(&self) -> ClusterObjects {
        let readings = Resource::ALL.iter().map(|&resource| async move {
            let listed = match self.list_resource(resource, true).await {
                // It does not support the selector.
                Err(ApiRequestError::Refused(_)) => self.list_resource(resource, false).await,
                listed => listed,
            };
            match listed {
                Ok(listed) => {
                    let freshness = Freshness {
                        state: ResourceState::Current,
                        last_update: Some(Timestamp::now()),
                        error: None,
                    };
                    (listed.state, freshness)
                }
                Err(error) => {
                    let freshness = Freshness {
                        state: state_of_error(&error),
                        last_update: None,
                        error: Some(error.to_string()),
                    };
                    (ResourceStore::new(resource), freshness)
                }
            }
        });
        let readings = join_all(readings).await;
        resource_store::objects(
            readings
                .iter()
                .map(|(store, freshness)| (store, freshness.clone())),
        )
    }

    /// The objects of one resource; of services by the server's selector, or by listing all.
    pub(super) async fn list_resource(
        &self,
        resource: Resource,
        by_selector: bool,
    ) -> Result<ListResponse<ResourceStore>, ApiRequestError> {
        let mut path = format!("{}?resourceVersion=0", path(resource));
        if resource == Resource::Services && by_selector {
            path.push('&');
            path.push_str(LOAD_BALANCERS);
        }
        self.list(
            ApiRequestKind::List,
            &path,
            ResourceStore::new(resource),
            |store, object| {
                store.apply(object, Timestamp::now());
            },
        )
        .await
    }
}
