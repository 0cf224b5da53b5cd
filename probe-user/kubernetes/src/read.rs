//! Everything that is followed, read once: for verbs that answer and end.

use futures_util::future::join_all;
use jiff::Timestamp;
use probe_cluster::{
    model::{Freshness, Known, Objects, Resource},
    shelf,
    shelf::Shelf,
};

use super::{Connection, ReadError, health::Request, list::Listed};

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
pub const fn unknown(error: &ReadError) -> Known {
    match error {
        ReadError::Missing(_) => Known::Missing,
        ReadError::Forbidden(_) | ReadError::Unauthorized(_) => Known::Forbidden,
        ReadError::Conflict(_)
        | ReadError::Gone(_)
        | ReadError::Refused(_)
        | ReadError::Unavailable(_)
        | ReadError::Unreachable(_)
        | ReadError::Garbage(_) => Known::Never,
    }
}

impl Connection {
    /// Everything that is followed, as it is now.
    pub async fn objects(&self) -> Objects {
        let readings = Resource::ALL.iter().map(|&resource| async move {
            let listed = match self.list_resource(resource, true).await {
                // It does not know the selector.
                Err(ReadError::Refused(_)) => self.list_resource(resource, false).await,
                listed => listed,
            };
            match listed {
                Ok(listed) => {
                    let freshness = Freshness {
                        known: Known::Current,
                        heard: Some(Timestamp::now()),
                        error: None,
                    };
                    (listed.state, freshness)
                }
                Err(error) => {
                    let freshness = Freshness {
                        known: unknown(&error),
                        heard: None,
                        error: Some(error.to_string()),
                    };
                    (Shelf::new(resource), freshness)
                }
            }
        });
        let readings = join_all(readings).await;
        shelf::objects(
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
    ) -> Result<Listed<Shelf>, ReadError> {
        let mut path = format!("{}?resourceVersion=0", path(resource));
        if resource == Resource::Services && by_selector {
            path.push('&');
            path.push_str(LOAD_BALANCERS);
        }
        self.list(
            Request::List,
            &path,
            Shelf::new(resource),
            |shelf, object| {
                shelf.put(object);
            },
        )
        .await
    }
}
