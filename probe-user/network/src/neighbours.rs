//! What the kernel believes of its neighbours: a stale entry keeps traffic going to the wrong machine long after
//! the wire has changed its mind.

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

/// How old the picture may be: scrapes by several servers cost one reading.
const CACHE_AGE: Duration = Duration::from_secs(5);
/// How long the kernel may take.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Entries that are looked at. A kernel keeps 1024 by default (`gc_thresh3`).
const MAX_ENTRIES: usize = 65_536;

/// The kernel's entries for IPv4 neighbours, by the index of their interface.
pub type NeighbourTable = HashMap<(u32, IpAddr), MacAddr>;

/// Reads them when somebody wants them. Clones share the last picture.
#[derive(Clone, Debug)]
pub struct NeighbourReader(Arc<Mutex<NeighbourCache>>);

#[derive(Debug)]
struct NeighbourCache {
    handle: Handle,
    read_at: Option<Instant>,
    neighbours: Arc<NeighbourTable>,
}

impl NeighbourReader {
    /// Opens a netlink socket in the present network namespace.
    pub fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Self(Arc::new(Mutex::new(NeighbourCache {
            handle,
            read_at: None,
            neighbours: Arc::default(),
        }))))
    }

    /// What the kernel believes now, or a moment ago. Nothing, where it does not say so in time.
    pub async fn read(&self) -> Arc<NeighbourTable> {
        let mut picture = self.0.lock().await;
        if picture.read_at.is_none_or(|at| at.elapsed() > CACHE_AGE) {
            picture.neighbours = match timeout(READ_TIMEOUT, read(&picture.handle)).await {
                Ok(Ok(neighbours)) => Arc::new(neighbours),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "neighbours not read");
                    Arc::default()
                }
                Err(_) => Arc::default(),
            };
            picture.read_at = Some(Instant::now());
        }
        picture.neighbours.clone()
    }
}

/// Reads them now.
pub async fn read(handle: &Handle) -> Result<NeighbourTable, rtnetlink::Error> {
    let request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet);
    let mut messages = request.execute();
    let mut neighbours = NeighbourTable::new();
    let mut looked_at = 0;
    while let Some(message) = messages.try_next().await? {
        neighbours.extend(neighbour(&message));
        looked_at += 1;
        if looked_at == MAX_ENTRIES {
            break;
        }
    }
    Ok(neighbours)
}

/// An entry that the kernel sends packets by.
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
