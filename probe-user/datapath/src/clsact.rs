//! clsact filters, which are used below Linux 6.6 instead of TCX: recognizes those that a killed process left.
//!
//! A clsact filter stays attached after its process is killed, so the next start removes it. A filter does not record
//! whether its process still runs, though, and the filter of a running process must stay: `probe watch` runs beside
//! `probe run`. So each process reserves a slot: the name of an abstract Unix socket in the network namespace, which the
//! kernel frees when the process exits for any reason, and the filter handle of the same number. A filter with the handle
//! of a free slot was left by a killed process. This works across containers as well, where process IDs and files do
//! not: processes that share the interface share the namespace of the names.
//!
//! A filter has no BPF link with a status, so the filters are listed to check whether one is still attached.

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

/// The number of slots per network namespace. Further processes attach as well, but filters that they leave are not
/// recognized.
const SLOTS: u16 = 16;

/// The major number of our filter handles: the ethertype of ARP.
const MAJOR: u16 = 0x0806;

/// The prefix of the socket names.
const PREFIX: &str = "arp-monitor/clsact/";

/// A slot that this process has reserved. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct FilterHandleReservation {
    prefix: &'static str,
    number: u16,
    _name: UnixDatagram,
}

impl FilterHandleReservation {
    /// Reserves the first free slot; `None` if there is none.
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
                tracing::debug!(number, %error, "cannot reserve the filter handle");
                None
            }
        }
    }

    /// The handle of the filters of this process, the same on all interfaces and in both directions.
    pub fn handle(&self) -> TcHandle {
        // 0 would let the kernel choose.
        TcHandle::new(MAJOR, self.number + 1)
    }

    /// Calls `remove` with each handle whose filters were left by killed processes: the handle of this slot, and those of
    /// the free slots. To be called before a filter is attached with this slot. Each free slot is reserved during the
    /// call, so that no other process attaches with it.
    pub fn for_each_abandoned(&self, mut remove: impl FnMut(TcHandle)) {
        remove(self.handle());
        for number in (0..SLOTS).filter(|&number| number != self.number) {
            if let Some(free) = Self::bind_reservation(self.prefix, number) {
                remove(free.handle());
            }
        }
    }
}

/// The handles of the clsact filters of an interface in both directions, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClsactFilters {
    ingress: Vec<u32>,
    egress: Vec<u32>,
}

impl ClsactFilters {
    /// Lists the filters of an interface.
    pub async fn read(ifindex: u32) -> io::Result<Self> {
        let list = async |direction| handles(ifindex, direction).await.map_err(io::Error::other);
        Ok(Self {
            ingress: list(Direction::Ingress).await?,
            egress: list(Direction::Egress).await?,
        })
    }

    /// Whether a filter of ours was removed or is behind another one. Filters of other probe processes may run before it,
    /// because they pass every frame.
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
        // The kernel sends a message without a filter for each priority.
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

    /// A prefix for the names of this test only: it may run beside others and beside a probe process.
    fn prefix(test: &str) -> &'static str {
        format!("arp-monitor-test/{}/{test}/", std::process::id()).leak()
    }

    #[test]
    fn a_filter_of_a_running_process_stays_and_that_of_a_killed_one_is_removed() {
        let prefix = prefix("living");
        let run = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        let watch = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        let (run_handle, watch_handle) = (u32::from(run.handle()), u32::from(watch.handle()));
        assert_ne!(run_handle, watch_handle);

        assert!(!abandoned(&watch).contains(&run_handle), "run is running");
        assert!(!abandoned(&run).contains(&watch_handle), "watch is running");
        drop(run);
        assert!(abandoned(&watch).contains(&run_handle), "run was killed");

        let next = FilterHandleReservation::reserve_prefix(prefix).unwrap();
        assert_eq!(u32::from(next.handle()), run_handle);
        assert!(
            abandoned(&next).contains(&run_handle),
            "a filter of the previous process with this slot"
        );
        assert!(!abandoned(&next).contains(&watch_handle));
    }

    #[test]
    fn a_filter_that_was_removed_or_is_behind_a_foreign_one_is_displaced() {
        let (ours, other_probe, foreign) = (0x0806_0001, 0x0806_0002, 1);
        let displaced = |ingress: &[u32]| {
            let filters = ClsactFilters {
                ingress: ingress.to_vec(),
                egress: vec![ours],
            };
            assert_eq!(filters.displaced(Direction::Egress, ours), None);
            filters.displaced(Direction::Ingress, ours)
        };
        assert_eq!(displaced(&[ours]), None);
        assert_eq!(displaced(&[ours, foreign]), None);
        assert_eq!(displaced(&[other_probe, ours, foreign]), None);
        assert_eq!(displaced(&[foreign, ours]), Some(DisplacedProgram::Behind));
        assert_eq!(
            displaced(&[other_probe, foreign, ours]),
            Some(DisplacedProgram::Behind)
        );
        assert_eq!(displaced(&[foreign]), Some(DisplacedProgram::Detached));
        assert_eq!(displaced(&[]), Some(DisplacedProgram::Detached));
    }

    #[test]
    fn handles_have_our_major_number_and_are_never_chosen_by_the_kernel() {
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
