//! Pools of live clusters, by kubeconfig context.

use probe_cluster::object_title;
use probe_pools::{ManifestError, PoolInventory, manifest};
use tokio::runtime;

use crate::cli::cluster::connect;

/// Reads the pools and advertisements of each context, as a cluster of that name. Errors are recorded in the inventory.
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
    // Register the cluster even if it has no pools.
    inventory.cluster(context);
    let location = format!("context {context}");
    let connection = match connect(Some(context)).await {
        Ok(connection) => connection,
        Err(error) => {
            let file = inventory.file(&location);
            return inventory.record_unread(file, None, ManifestError::Io(error.to_string()));
        }
    };
    let read = connection.pool_objects().await;
    for (what, error) in read.errors {
        let file = inventory.file(&format!("{location}: {what}"));
        inventory.record_unread(file, None, ManifestError::Io(error.to_string()));
    }
    for object in read.objects {
        let file = format!("{location}: {}", object_title(&object));
        // JSON is YAML.
        manifest::read(inventory, context, &file, &object.to_string());
    }
}
