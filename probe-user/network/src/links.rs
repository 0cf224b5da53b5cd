//! Watches the interfaces of this host and their addresses by netlink.
//!
//! After any change, the complete state is read again and published. A burst of changes causes one read.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use probe_common::wire::MacAddr;
use probe_model::{DefaultRoute, Link, Links};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{
            InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
            LinkMessage, LinkXdp,
        },
        route::{RouteAddress, RouteAttribute},
    },
};
use rustix::io::Errno;
use thiserror::Error;
use tokio::{sync::watch, time::timeout};

/// The time during which changes are collected before the state is read again.
const DEBOUNCE_DELAY: Duration = Duration::from_millis(50);

/// The interval of reads without a change, for the default route. Route changes are not subscribed to, because the table
/// of a router changes continuously.
const ROUTE_INTERVAL: Duration = Duration::from_secs(10);

/// Why the interfaces could not be read.
#[derive(Debug, Error)]
pub enum LinksError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel returned an error.
    #[error("cannot list the interfaces: {0}")]
    Dump(#[from] rtnetlink::Error),
    /// The netlink connection ended.
    #[error("the netlink connection ended")]
    Closed,
}

/// Reads the interfaces and watches them in a spawned task. The receiver has the current interfaces at once; it is closed
/// when the netlink connection ends.
pub async fn watch_links() -> Result<watch::Receiver<Arc<Links>>, LinksError> {
    let (receiver, watcher) = link_watcher().await?;
    tokio::spawn(watcher);
    Ok(receiver)
}

/// Reads the interfaces and returns the task that watches them, to be run by the caller. The task ends when the netlink
/// connection ends or when all receivers are dropped.
pub async fn link_watcher() -> Result<
    (
        watch::Receiver<Arc<Links>>,
        impl Future<Output = ()> + Send + 'static,
    ),
    LinksError,
> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, mut changes) = new_multicast_connection(&groups)?;
    let mut connection = Box::pin(connection);
    let links = tokio::select! {
        links = read(&handle) => links?,
        () = &mut connection => return Err(LinksError::Closed),
    };

    let (sender, receiver) = watch::channel(Arc::new(links));
    let reader = async move {
        loop {
            match timeout(ROUTE_INTERVAL, changes.next()).await {
                Ok(Some(_)) => tokio::time::sleep(DEBOUNCE_DELAY).await,
                Ok(None) => break,
                Err(_elapsed) => {}
            }
            // The next read includes all changes that were received so far.
            while changes.try_recv().is_ok() {}
            match read(&handle).await {
                Ok(links) => {
                    sender.send_if_modified(|current| {
                        let modified = **current != links;
                        if modified {
                            *current = Arc::new(links);
                        }
                        modified
                    });
                }
                // Another change interrupted the dump; it is in the queue, so the state is read again.
                Err(error) => tracing::debug!(%error, "cannot read the interfaces"),
            }
            if sender.is_closed() {
                break;
            }
        }
    };
    let watcher = async move {
        tokio::select! {
            () = reader => {}
            () = connection => {}
        }
    };
    Ok((receiver, watcher))
}

async fn read(handle: &Handle) -> Result<Links, LinksError> {
    let mut links: Links = handle
        .link()
        .get()
        .execute()
        .map_ok(link)
        .try_collect::<Vec<_>>()
        .await?
        .into_iter()
        .collect();
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        if let (Some(link), Some(address)) =
            (links.get_mut(message.header.index), address(&message))
        {
            link.addresses.push(address);
        }
    }
    Ok(links.with_default_route(default_route(handle).await?))
}

/// Looks up the default route: the route to an address of TEST-NET-2 (RFC 5737), for which no other route exists. One
/// lookup instead of a dump, because a router may have a million routes.
async fn default_route(handle: &Handle) -> Result<Option<DefaultRoute>, LinksError> {
    let off_link = Ipv4Addr::new(198, 51, 100, 1);
    let request = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(off_link, 32)
        .build();
    let route = match handle.route().get(request).execute().try_next().await {
        Ok(Some(route)) => route,
        Ok(None) => return Ok(None),
        Err(error) if is_no_route(&error) => return Ok(None),
        // The route may exist nevertheless: a failed lookup must not change the watched interfaces.
        Err(error) => return Err(error.into()),
    };
    let interface = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
    let gateway = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            _ => None,
        });
    Ok(interface.map(|interface| DefaultRoute { interface, gateway }))
}

/// Whether the kernel says that there is no route (`fib_props` in `net/ipv4/fib_semantics.c`): none at all, or one
/// that is unreachable, prohibited or a black hole.
fn is_no_route(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    [
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::ACCESS,
        Errno::INVAL,
    ]
    .map(Errno::raw_os_error)
    .contains(&message.raw_code().abs())
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        arp: !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Promiscuity(users) => link.promiscuous = users > 0,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Link(parent) => link.parent = Some(parent),
            LinkAttribute::LinkInfo(info) => {
                link.vlan = info.iter().find_map(vlan);
                link.kind = info.into_iter().find_map(kind);
            }
            LinkAttribute::Xdp(xdp) => link.xdp_program = xdp.iter().find_map(program),
            _ => {}
        }
    }
    link
}

fn kind(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn vlan(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(data)) = info else {
        return None;
    };
    data.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(vid) => Some(*vid),
        _ => None,
    })
}

fn program(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    }
}

/// The address of an interface. On a point-to-point link `Address` is the peer's, so `Local` goes first.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = find(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(local.or(any)?, message.header.prefix_len).ok()
}
