//! Pools of live clusters, each by a context of kubeconfig.

use probe_cluster::object_title;
use probe_pools::{ManifestError, PoolInventory, manifest};
use tokio::runtime;

use crate::cli::cluster::connect;

/// Reads the pools and advertisements of each context: a cluster of that name. What cannot be read is noted.
pub fn read(inventory: &mut PoolInventory, contexts: &[String]) -> anyhow::Result<()> {
    if contexts.is_empty() {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for context in contexts {
        runtime.block_on(read_one(inventory, context));
    }
    Ok(())
}

async fn read_one(inventory: &mut PoolInventory, context: &str) {
    // A cluster without pools is one as well.
    inventory.cluster(context);
    let place = format!("context {context}");
    let connection = match connect(Some(context)).await {
        Ok(connection) => connection,
        Err(error) => {
            let file = inventory.file(&place);
            return inventory.record_unread(file, None, ManifestError::Io(error.to_string()));
        }
    };
    let read = connection.pool_objects().await;
    for (what, error) in read.errors {
        let file = inventory.file(&format!("{place}: {what}"));
        inventory.record_unread(file, None, ManifestError::Io(error.to_string()));
    }
    for object in read.objects {
        let file = format!("{place}: {}", object_title(&object));
        // JSON is YAML.
        manifest::read(inventory, context, &file, &object.to_string());
    }
}
