//! The watched interfaces with the state of their attachment.

use probe_common::{event::Hook, label_enum};

/// The mode in which received frames are observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachedMode {
    /// XDP in the driver: the earliest and cheapest hook, before a socket buffer is allocated.
    Native,
    /// TC ingress: can read VLAN tags that the network card stripped, and works beside other programs.
    Tc,
    /// Generic XDP, after a socket buffer is allocated: for drivers without XDP; slows down all traffic.
    Generic,
}

impl AttachedMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Native, Self::Tc, Self::Generic];

    /// The label in flags, metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }

    /// Whether it uses the XDP hook of the interface.
    pub const fn is_xdp(self) -> bool {
        match self {
            Self::Native | Self::Generic => true,
            Self::Tc => false,
        }
    }

    /// The hook of received frames.
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
    /// Why an interface is watched in its mode.
    pub enum AttachReason {
        /// This mode was requested.
        Requested = "requested",
        /// The driver supports native XDP, and no other reason applies.
        NativeIsFree = "native_available",
        /// Native XDP disables segmentation offload of the driver: on veth it reduced TCP from 18 to 7 Gbit/s, while TC had
        /// no measurable cost.
        BreaksOffload = "disables_offload",
        /// XDP on a bond reports the interface indexes of its ports.
        BondMaster = "bond_master",
        /// A virtual device, for which XDP has no advantage.
        VirtualDevice = "virtual_device",
        /// The network card strips VLAN tags, so that XDP would treat several VLANs as one segment.
        VlanOffload = "vlan_offload",
        /// The driver resets the link when an XDP program is attached.
        ResetsLink = "link_reset",
        /// The driver is not in the list of those that keep the link when an XDP program is attached.
        DriverNotListed = "driver_unknown",
        /// The MTU requires multi-buffer XDP, which this kernel does not support.
        Mtu = "mtu",
        /// An XDP program of another process is attached. It is never replaced.
        XdpTaken = "xdp_in_use",
        /// An attempt to attach native XDP failed.
        NativeRefused = "native_refused",
        /// The operator released the XDP hook.
        Released = "released",
    }
}

/// The planned mode of attachment, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPlan {
    /// The mode in which received frames are observed.
    pub mode: AttachedMode,
    /// The reason.
    pub reason: AttachReason,
}

/// A watched interface with the state of its attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    /// The index of the interface.
    pub ifindex: u32,
    /// The current name of the interface.
    pub name: String,
    /// The state of the attachment.
    pub state: WatchState,
}

/// The state of the attachment to a watched interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The programs are attached.
    Attached {
        /// The mode with its reason.
        plan: AttachPlan,
        /// Whether the programs can read the VLAN of received frames: not if the network card strips tags before XDP runs.
        vlan_visible: bool,
    },
    /// The programs could not be attached; the attachment is retried.
    Failed {
        /// The reason.
        reason: String,
    },
}

/// All watched interfaces, also those with a failed attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedInterfaces(Vec<WatchedInterface>);

impl WatchedInterfaces {
    /// Whether the interface is watched.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.get(ifindex).is_some()
    }

    /// Returns the interface with this index.
    pub fn get(&self, ifindex: u32) -> Option<&WatchedInterface> {
        self.0.iter().find(|watched| watched.ifindex == ifindex)
    }

    /// The name of the interface with this index; `ifINDEX` if it is not watched.
    pub fn name_of(&self, ifindex: u32) -> String {
        let watched = self.get(ifindex);
        watched.map_or_else(|| format!("if{ifindex}"), |watched| watched.name.clone())
    }

    /// Iterates over the interfaces in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &WatchedInterface> {
        self.0.iter()
    }

    /// Whether there is at least one interface, and the programs are attached to all of them.
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
