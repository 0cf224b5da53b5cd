//! Everything that is followed, read once: for verbs that answer and end.

use futures_util::future::join_all;
use jiff::Timestamp;
use probe_cluster::{
    resource_store,
    resource_store::ResourceStore,
    snapshot::{ClusterObjects, Freshness, Resource, ResourceState},
};

use super::{ApiConnection, ApiRequestError, health::ApiRequestKind, list::ListResponse};

/// The services that are meant, by a selector that servers before 1.31 do not know.
pub const LOAD_BALANCERS: &str = "fieldSelector=spec.type%3DLoadBalancer";

/// Where a resource is.
pub const fn path(resource: Resource) -> &'static str {
    match resource {
        Resource::Services => "/api/v1/services",
        Resource::IpAddressPools => "/apis/metallb.io/v1beta1/ipaddresspools",
        Resource::L2Advertisements => "/apis/metallb.io/v1beta1/l2advertisements",
        Resource::BgpAdvertisements => "/apis/metallb.io/v1beta1/bgpadvertisements",
        Resource::ServiceL2Statuses => "/apis/metallb.io/v1beta1/servicel2statuses",
    }
}

/// How well something is known that could not be read.
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
    /// Everything that is followed, as it is now.
    pub async fn objects(&self) -> ClusterObjects {
        let readings = Resource::ALL.iter().map(|&resource| async move {
            let listed = match self.list_resource(resource, true).await {
                // It does not know the selector.
                Err(ApiRequestError::Refused(_)) => self.list_resource(resource, false).await,
                listed => listed,
            };
            match listed {
                Ok(listed) => {
                    let freshness = Freshness {
                        known: ResourceState::Current,
                        heard: Some(Timestamp::now()),
                        error: None,
                    };
                    (listed.state, freshness)
                }
                Err(error) => {
                    let freshness = Freshness {
                        known: state_of_error(&error),
                        heard: None,
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
                .map(|(shelf, freshness)| (shelf, freshness.clone())),
        )
    }

    /// The objects of one resource; of services by the server's selector, or by reading all of them.
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
            |shelf, object| {
                shelf.apply(object, Timestamp::now());
            },
        )
        .await
    }
}
