//! Filters where there is no TCX, below 6.6: which of those that are there belong to nobody any more.
//!
//! A clsact filter outlives a process that is killed, so the next start removes it. A filter does not say
//! whether its maker still lives, though, and that of a living one has to stay: `probe watch` runs beside
//! `probe run`. So each process takes a slot: a name that it holds in the network namespace, an abstract Unix
//! socket, which the kernel frees however the process ends; and the filter handle that goes with the name. A
//! filter at the handle of a slot that nobody holds was left behind. That works across containers, too, where
//! process numbers and files do not: whoever shares the interface shares the namespace of the names.
//!
//! There is no link that says whether a filter is still attached, so the filters are listed for that.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use aya::programs::tc::TcHandle;
use futures_util::TryStreamExt as _;
use probe_common::counter::Direction;
use rtnetlink::new_connection;

use super::device::DisplacedProgram;

/// How many probes may watch the interfaces of one network namespace at once; one more still attaches, but
/// what it leaves behind is not recognised.
const SLOTS: u16 = 16;

/// What marks a handle as ours: ARP's ethertype.
const MAJOR: u16 = 0x0806;

/// What the names begin with.
const PREFIX: &str = "arp-monitor/clsact/";

/// A slot, held by this process for as long as the value lives.
#[derive(Debug)]
pub(super) struct FilterHandleReservation {
    prefix: &'static str,
    number: u16,
    _name: UnixDatagram,
}

impl FilterHandleReservation {
    /// Takes the first slot that is free, if there is one.
    pub fn reserve() -> Option<Self> {
        Self::reserve_prefix(PREFIX)
    }

    fn reserve_prefix(prefix: &'static str) -> Option<Self> {
        (0..SLOTS).find_map(|number| Self::bind_reservation(prefix, number))
    }

    fn bind_reservation(prefix: &'static str, number: u16) -> Option<Self> {
        match bind(prefix, number) {
            Ok(name) => Some(Self {
                prefix,
                number,
                _name: name,
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => {
                tracing::debug!(number, %error, "slot not taken");
                None
            }
        }
    }

    /// The handle of this process's filters: one for each interface and direction.
    pub fn handle(&self) -> TcHandle {
        // 0 would let the kernel choose.
        TcHandle::new(MAJOR, self.number + 1)
    }

    /// Calls `remove` for each handle at which a filter belongs to nobody: this slot's own, as long as
    /// nothing was attached by it, and those of the slots that are free. They are held meanwhile, so that
    /// nobody attaches there.
    pub fn for_each_abandoned(&self, mut remove: impl FnMut(TcHandle)) {
        remove(self.handle());
        for number in (0..SLOTS).filter(|&number| number != self.number) {
            if let Some(free) = Self::bind_reservation(self.prefix, number) {
                remove(free.handle());
            }
        }
    }
}

/// The clsact filters of an interface in both directions: their handles, in the order in which they see a
/// frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClsactFilters {
    ingress: Vec<u32>,
    egress: Vec<u32>,
}

impl ClsactFilters {
    /// Lists them.
    pub async fn read(ifindex: u32) -> io::Result<Self> {
        let list = async |direction| handles(ifindex, direction).await.map_err(io::Error::other);
        Ok(Self {
            ingress: list(Direction::Ingress).await?,
            egress: list(Direction::Egress).await?,
        })
    }

    /// What has become of a filter of ours. Other probes may be in front of it: they let every frame go on.
    pub(super) fn displaced(&self, direction: Direction, ours: u32) -> Option<DisplacedProgram> {
        let handles = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        if !handles.contains(&ours) {
            return Some(DisplacedProgram::Detached);
        }
        let before_ours = handles.iter().take_while(|&&handle| handle != ours);
        before_ours
            .copied()
            .any(|handle| !belongs_to_probe(handle))
            .then_some(DisplacedProgram::Behind)
    }
}

fn belongs_to_probe(handle: u32) -> bool {
    handle >> 16 == u32::from(MAJOR)
}

async fn handles(ifindex: u32, direction: Direction) -> anyhow::Result<Vec<u32>> {
    let (connection, netlink, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let request = netlink.traffic_filter(ifindex.try_into()?).get();
    let request = match direction {
        Direction::Ingress => request.ingress(),
        Direction::Egress => request.egress(),
    };
    let messages = request.execute().try_collect::<Vec<_>>().await;
    connection.abort();
    Ok(messages?
        .into_iter()
        .map(|message| u32::from(message.header.handle))
        // Each priority is announced by a message without a filter.
        .filter(|&handle| handle != 0)
        .collect())
}

fn bind(prefix: &str, number: u16) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!(
        "{prefix}{number}"
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abandoned(slot: &FilterHandleReservation) -> Vec<u32> {
        let mut handles = Vec::new();
        slot.for_each_abandoned(|handle| handles.push(u32::from(handle)));
        handles.sort_unstable();
        handles
    }

    /// Names of this test alone: it may run beside others and beside a real probe.
    fn prefix(test: &str) -> &'static str {
        format!("arp-monitor-test/{}/{test}/", std::process::id()).leak()
    }

    #[test]
    fn a_filter_of_a_living_probe_is_left_alone_and_that_of_a_dead_one_is_not() {
        let prefix = prefix("living");
        let run = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        let watch = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        let (run_handle, watch_handle) = (u32::from(run.handle()), u32::from(watch.handle()));
        assert_ne!(run_handle, watch_handle);

        assert!(!abandoned(&watch).contains(&run_handle), "run lives");
        assert!(!abandoned(&run).contains(&watch_handle), "watch lives");
        drop(run);
        assert!(abandoned(&watch).contains(&run_handle), "run was killed");

        let next = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        assert_eq!(u32::from(next.handle()), run_handle);
        assert!(
            abandoned(&next).contains(&run_handle),
            "what an earlier holder of the slot left there"
        );
        assert!(!abandoned(&next).contains(&watch_handle));
    }

    #[test]
    fn a_filter_that_is_gone_or_behind_a_strangers_is_noticed() {
        let (ours, kin, stranger) = (0x0806_0001, 0x0806_0002, 1);
        let displaced = |ingress: &[u32]| {
            let filters = ClsactFilters {
                ingress: ingress.to_vec(),
                egress: vec![ours],
            };
            assert_eq!(filters.displaced(Direction::Egress, ours), None);
            filters.displaced(Direction::Ingress, ours)
        };
        assert_eq!(displaced(&[ours]), None);
        assert_eq!(displaced(&[ours, stranger]), None);
        assert_eq!(displaced(&[kin, ours, stranger]), None);
        assert_eq!(displaced(&[stranger, ours]), Some(DisplacedProgram::Behind));
        assert_eq!(
            displaced(&[kin, stranger, ours]),
            Some(DisplacedProgram::Behind)
        );
        assert_eq!(displaced(&[stranger]), Some(DisplacedProgram::Detached));
        assert_eq!(displaced(&[]), Some(DisplacedProgram::Detached));
    }

    #[test]
    fn handles_are_marked_and_never_left_to_the_kernel() {
        let prefix = prefix("handles");
        let slots: Vec<_> =
            std::iter::from_fn(|| FilterHandleReservation::reserve_prefix(prefix)).collect();
        assert_eq!(slots.len(), usize::from(SLOTS));
        for slot in &slots {
            let handle = u32::from(slot.handle());
            assert_eq!(handle >> 16, u32::from(MAJOR));
            assert_ne!(handle & 0xffff, 0);
        }
    }
}
