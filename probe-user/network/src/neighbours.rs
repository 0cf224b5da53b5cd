//! Reads the neighbour table of the kernel. With a stale entry, this host keeps sending packets to the previous owner of
//! an address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use probe_common::wire::MacAddr;
use rtnetlink::{
    Handle, new_connection,
    packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};
use tokio::{sync::Mutex, time::timeout};

/// The maximum age of a cached table: scrapes by several servers cause one read.
const CACHE_AGE: Duration = Duration::from_secs(5);
/// The timeout of a read.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of entries to read. The kernel's default is 1024 (`gc_thresh3`).
const MAX_ENTRIES: usize = 65_536;

/// The MACs of IPv4 neighbours, by interface index and address.
pub type NeighbourTable = HashMap<(u32, IpAddr), MacAddr>;

/// Reads the neighbour table on demand. Clones share a cached table.
#[derive(Clone, Debug)]
pub struct NeighbourReader(Arc<Mutex<NeighbourCache>>);

#[derive(Debug)]
struct NeighbourCache {
    handle: Handle,
    read_at: Option<Instant>,
    neighbours: Arc<NeighbourTable>,
}

impl NeighbourReader {
    /// Opens a netlink socket in the current network namespace.
    pub fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Self(Arc::new(Mutex::new(NeighbourCache {
            handle,
            read_at: None,
            neighbours: Arc::default(),
        }))))
    }

    /// Returns the neighbour table, cached for up to 5 s; an empty table if it cannot be read in time.
    pub async fn read(&self) -> Arc<NeighbourTable> {
        let mut cache = self.0.lock().await;
        if cache.read_at.is_none_or(|at| at.elapsed() > CACHE_AGE) {
            cache.neighbours = match timeout(READ_TIMEOUT, read(&cache.handle)).await {
                Ok(Ok(neighbours)) => Arc::new(neighbours),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "cannot read the neighbour table");
                    Arc::default()
                }
                Err(_) => Arc::default(),
            };
            cache.read_at = Some(Instant::now());
        }
        cache.neighbours.clone()
    }
}

/// Reads the neighbour table without a cache.
pub async fn read(handle: &Handle) -> Result<NeighbourTable, rtnetlink::Error> {
    let request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet);
    let mut messages = request.execute();
    let mut neighbours = NeighbourTable::new();
    let mut count = 0;
    while let Some(message) = messages.try_next().await? {
        neighbours.extend(neighbour(&message));
        count += 1;
        if count == MAX_ENTRIES {
            break;
        }
    }
    Ok(neighbours)
}

/// Parses an entry; `None` if the kernel sends no packets by it.
fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), MacAddr)> {
    match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => {}
        _ => return None,
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                ip = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some(((message.header.ifindex, ip?), mac?))
}
