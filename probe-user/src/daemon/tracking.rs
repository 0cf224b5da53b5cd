//! Computes the expected addresses from the cluster and the interfaces.

use std::sync::Arc;

use jiff::Timestamp;
use probe_cluster::{
    ClusterSnapshot,
    tracking::{SegmentCoverage, compute_coverage, on_link},
};
use probe_detect::ExpectedAddresses;
use probe_model::{Links, watched::WatchedInterfaces};
use tokio::sync::watch;

/// Watches the cluster and the interfaces, and publishes the expected addresses, and the coverage to
/// `segment_coverage`. The previous values stay while required data is missing.
pub fn follow(
    mut cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    mut links: watch::Receiver<Arc<Links>>,
    mut watched: watch::Receiver<Arc<WatchedInterfaces>>,
    segment_coverage: watch::Sender<Option<SegmentCoverage>>,
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
            // Run on a blocking thread, because ten thousand addresses in hundreds of pools take a while.
            let found = tokio::task::spawn_blocking(move || {
                compute_coverage(&known, &on_link, listens_since)
            })
            .await;
            if let Ok(Some(survey)) = found {
                segment_coverage.send_if_modified(|segment_coverage| {
                    segment_coverage.replace(survey.segment_coverage)
                        != Some(survey.segment_coverage)
                });
                let found = survey.expected;
                sender.send_if_modified(|expected: &mut Arc<ExpectedAddresses>| {
                    let is_news = **expected != found;
                    if is_news {
                        tracing::debug!(addresses = found.len(), "expected addresses changed");
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
