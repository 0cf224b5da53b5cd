//! Pages of addresses: reading the whole table at once would delay the next frame.

use std::ops::Bound;

use probe_common::wire::MacAddr;
use probe_model::{BindingKey, ConflictView, OwnerView, Timestamp};
use smallvec::SmallVec;

use super::table::BindingSlot;

/// A group of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressGroup {
    /// Those with an open conflict.
    Conflicts,
    /// Those that are, or were lately, contested.
    Contested,
    /// Tracked addresses.
    Tracked,
}

/// The position from which to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCursor(Option<BindingSlot>);

/// A part of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingPage {
    /// The addresses. One that comes or goes between two pages may be missing, or be there twice.
    pub addresses: Vec<AddressView>,
    /// Where the next page begins; none after the last.
    pub next: Option<TableCursor>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, a metric each"
)]
pub struct AddressView {
    /// Its segment and address.
    pub key: BindingKey,
    /// Whether it is tracked.
    pub tracked: bool,
    /// Whether its disputes are on the ignore list.
    pub ignored: bool,
    /// Its current owner, if it was ever claimed.
    pub current_owner: Option<CurrentOwner>,
    /// Whether its silence has been reported and lasts.
    pub silent: bool,
    /// Whether claims were lately not observed because of the kernel's rate limit.
    pub rate_limited: bool,
    /// Whether neighbour caches may hold the MAC of a host that announced it and does not reply for it.
    pub stale_announcement: bool,
    /// Whether its ownership was flapping lately.
    pub contested: bool,
    /// The owners in its open conflict, if it has one.
    pub parties: Option<Vec<OwnerView>>,
    /// That conflict.
    pub conflict: Option<ConflictView>,
}

/// The current owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentOwner {
    /// The MAC that identifies it: the same one on every node, also where it has several.
    pub canonical: MacAddr,
    /// The MACs that it was seen with.
    pub macs: SmallVec<[MacAddr; 2]>,
    /// Its last claim.
    pub last_claim: Timestamp,
}

impl TableCursor {
    /// Just after an entry.
    pub(super) const fn after(slot: BindingSlot) -> Self {
        Self(Some(slot))
    }

    /// The first number that is left.
    pub(super) fn first(self) -> usize {
        self.0.map_or(0, |slot| slot as usize + 1)
    }

    /// The entries that are left.
    pub(super) fn rest(self) -> (Bound<BindingSlot>, Bound<BindingSlot>) {
        (
            self.0.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        )
    }
}
