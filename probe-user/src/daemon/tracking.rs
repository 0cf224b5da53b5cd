//! Follows the cluster and the interfaces for the addresses that are expected here.

use std::sync::Arc;

use jiff::Timestamp;
use probe_cluster::{
    ClusterSnapshot,
    tracking::{SegmentCoverage, compute_coverage, on_link},
};
use probe_detect::ExpectedAddresses;
use probe_model::{Links, watched::WatchedInterfaces};
use tokio::sync::watch;

/// Follows the cluster and the interfaces, and says what is expected, and to `sight` how much that is. What was expected
/// stays so while too little is known.
pub fn follow(
    mut cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    mut links: watch::Receiver<Arc<Links>>,
    mut watched: watch::Receiver<Arc<WatchedInterfaces>>,
    sight: watch::Sender<Option<SegmentCoverage>>,
) -> (
    watch::Receiver<Arc<ExpectedAddresses>>,
    impl Future<Output = ()> + Send + 'static,
) {
    let (sender, receiver) = watch::channel(Arc::default());
    let listens_since = Timestamp::now();
    let task = async move {
        loop {
            let (known, on_link) = {
                let known = cluster.borrow_and_update().clone();
                let links = links.borrow_and_update().clone();
                (known, on_link(&links, &watched.borrow_and_update()))
            };
            // Ten thousand addresses among hundreds of pools take their time.
            let found = tokio::task::spawn_blocking(move || {
                compute_coverage(&known, &on_link, listens_since)
            })
            .await;
            if let Ok(Some(survey)) = found {
                sight.send_if_modified(|sight| sight.replace(survey.sight) != Some(survey.sight));
                let found = survey.expected;
                sender.send_if_modified(|expected: &mut Arc<ExpectedAddresses>| {
                    let is_news = **expected != found;
                    if is_news {
                        tracing::debug!(addresses = found.len(), "other addresses are expected");
                        *expected = Arc::new(found);
                    }
                    is_news
                });
            }
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                changed = links.changed() => if changed.is_err() { return },
                changed = watched.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    };
    (receiver, task)
}
