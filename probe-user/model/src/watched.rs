//! The watched interfaces: how each is watched, or why it is not.

use probe_common::{event::Hook, label_enum};

/// How arriving frames are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachedMode {
    /// XDP in the driver: earliest and cheapest, before a socket buffer exists.
    Native,
    /// TC ingress: sees tags that the network card stripped, and gets along with every other program.
    Tc,
    /// XDP after the socket buffer was made: costs all traffic, for drivers without XDP.
    Generic,
}

impl AttachedMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Native, Self::Tc, Self::Generic];

    /// The word used in flags, metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }

    /// Whether it takes the interface's XDP slot.
    pub const fn is_xdp(self) -> bool {
        match self {
            Self::Native | Self::Generic => true,
            Self::Tc => false,
        }
    }

    /// The hook of arriving frames.
    pub const fn ingress_hook(self) -> Hook {
        match self {
            Self::Native | Self::Generic => Hook::Xdp,
            Self::Tc => Hook::TcIngress,
        }
    }
}

impl std::fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

label_enum! {
    /// Why an interface is watched in the way it is.
    pub enum AttachReason {
        /// Somebody asked for this mode.
        Requested = "requested",
        /// A network card whose driver has native XDP, and nothing speaks against it.
        NativeIsFree = "native_available",
        /// Native XDP on such a device turns segmentation offload off: on veth it took TCP from 18 to
        /// 7 Gbit/s, and TC cost nothing measurable.
        BreaksOffload = "disables_offload",
        /// XDP on a bond reports its ports.
        BondMaster = "bond_master",
        /// A device of the kernel's own, where XDP gains nothing.
        VirtualDevice = "virtual_device",
        /// The network card strips VLAN tags, and XDP would take the frames of two VLANs for one segment.
        VlanOffload = "vlan_offload",
        /// The driver takes the link down when a program is attached.
        ResetsLink = "link_reset",
        /// The driver is not known to keep the link when a program is attached.
        DriverNotListed = "driver_unknown",
        /// The MTU needs multi-buffer XDP, which this kernel does not have.
        Mtu = "mtu",
        /// Somebody else's XDP program is attached. It stays.
        XdpTaken = "xdp_in_use",
        /// The driver refused native XDP when it was tried.
        NativeRefused = "native_refused",
        /// An operator released the XDP slot for somebody else.
        Released = "released",
    }
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPlan {
    /// How arriving frames are seen.
    pub mode: AttachedMode,
    /// Why so.
    pub reason: AttachReason,
}

/// A watched interface, for those who show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    /// Its index.
    pub ifindex: u32,
    /// Its name now.
    pub name: String,
    /// How its arriving frames are seen, and why so; or why they are not.
    pub state: WatchState,
}

/// Whether an interface that should be watched is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The programs are attached.
    Attached {
        /// How, and why so.
        plan: AttachPlan,
        /// Whether the VLAN of an arriving frame can be told: not where the network card strips the tag
        /// before XDP sees it.
        vlan_visible: bool,
    },
    /// They could not be attached; it is tried again.
    Failed {
        /// Why.
        reason: String,
    },
}

/// All interfaces that should be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedInterfaces(Vec<WatchedInterface>);

impl WatchedInterfaces {
    /// Whether the interface should be watched.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.get(ifindex).is_some()
    }

    /// The interface with this index.
    pub fn get(&self, ifindex: u32) -> Option<&WatchedInterface> {
        self.0.iter().find(|watched| watched.ifindex == ifindex)
    }

    /// The name of the interface with this index, also of one that is gone.
    pub fn name_of(&self, ifindex: u32) -> String {
        let watched = self.get(ifindex);
        watched.map_or_else(|| format!("if{ifindex}"), |watched| watched.name.clone())
    }

    /// Every one of them, in the order of its index.
    pub fn iter(&self) -> impl Iterator<Item = &WatchedInterface> {
        self.0.iter()
    }

    /// Whether there is at least one, and the programs are attached to all of them.
    pub fn is_any_attached(&self) -> bool {
        let attached =
            |watched: &WatchedInterface| matches!(watched.state, WatchState::Attached { .. });
        !self.0.is_empty() && self.0.iter().all(attached)
    }
}

impl FromIterator<WatchedInterface> for WatchedInterfaces {
    fn from_iter<T: IntoIterator<Item = WatchedInterface>>(interfaces: T) -> Self {
        Self(interfaces.into_iter().collect())
    }
}
