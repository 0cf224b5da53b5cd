//! Plans the mode of attachment to an interface: a pure function of its properties.

use clap::ValueEnum;
use probe_model::watched::{AttachPlan, AttachReason, AttachedMode};

use crate::attach::LARGEST_SINGLE_BUFFER_MTU;

/// The requested mode of attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// Native XDP where it is possible without harm, else TC
    #[default]
    Auto,
    /// XDP in the driver
    Native,
    /// TC ingress: works beside other programs
    Tc,
    /// XDP after the socket buffer is allocated; slows down all traffic
    Generic,
}

/// The properties of an interface on which the mode of attachment depends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, one row of a table each"
)]
pub struct LinkEnvironment {
    /// The kind of virtual device (`veth`, `bond` …); `None` for hardware.
    pub kind: Option<String>,
    /// The driver, as in `/sys/class/net/NAME/device/driver`.
    pub driver: Option<String>,
    /// The MTU, in bytes.
    pub mtu: u32,
    /// Whether the offloads and the driver could be read. If not, the offloads are the worst ones.
    pub offloads_known: bool,
    /// Whether the card strips VLAN tags from frames (`rx-vlan-hw-parse`).
    pub strips_vlan_tags: bool,
    /// Whether the card only accepts VLANs that this host uses (`rx-vlan-filter`, and not promiscuous).
    pub filters_vlans: bool,
    /// Whether the interface has VLAN children.
    pub has_vlans: bool,
    /// Whether an XDP program of another process is attached.
    pub xdp_in_use: bool,
    /// Whether the kernel supports multi-buffer XDP (5.18).
    pub multi_buffer: bool,
    /// Whether the driver has refused native XDP before.
    pub native_refused: bool,
    /// Whether the operator released the XDP hook.
    pub released: bool,
}

impl LinkEnvironment {
    /// Whether the programs can read the VLAN of a received frame in this mode.
    pub fn shows_vlan_tags(&self, mode: AttachedMode) -> bool {
        !(mode.is_xdp() && self.strips_vlan_tags)
    }
}

/// Drivers for which native XDP disables segmentation offload (`drivers/net/{veth,virtio_net,tun}.c`).
const OFFLOAD_DISABLING_DRIVERS: [&str; 3] = ["veth", "virtio_net", "tun"];

/// Drivers that close and reopen the device, or drop the carrier, when a program is attached or detached, so that ports
/// flap, bonds fail over and spanning trees reconverge. As of Linux 6.12.
const LINK_RESETTING_DRIVERS: [&str; 8] = [
    "igb",           // igb_xdp_setup: igb_close, igb_open
    "igc",           // igc_xdp_set_prog: igc_close, igc_open
    "ixgbe",         // ixgbe_xdp_setup: ixgbe_setup_tc closes and opens
    "ixgbevf",       // ixgbevf_xdp_setup: likewise
    "st_gmac",       // stmmac_xdp_set_prog: netif_carrier_off
    "intel-eth-pci", // the same driver core
    "mvneta",        // mvneta_xdp_setup: mvneta_stop, mvneta_open
    "mvpp2",         // mvpp2_xdp_setup: mvpp2_stop, mvpp2_open
];

/// Drivers that support native XDP and keep the link when a program is attached or detached, as of Linux 6.12 (`ndo_bpf`
/// in `drivers/net`). They may still reset their rings, so rollouts go node by node.
const XDP_DRIVERS: [&str; 20] = [
    "atlantic",
    "bnxt_en",
    "ena",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "ionic",
    "mana",
    "mlx4_core",
    "mlx5_core",
    "nfp",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "thunder-nicvf",
    "vmxnet3",
];

/// Plans the mode of attachment to an interface. A mode other than `auto` is used as requested. For `auto`, the first row
/// of the table that applies prevents native XDP.
pub fn plan_attach(requested: AttachMode, link: &LinkEnvironment) -> AttachPlan {
    let requested_mode = match requested {
        AttachMode::Auto => None,
        AttachMode::Native => Some(AttachedMode::Native),
        AttachMode::Tc => Some(AttachedMode::Tc),
        AttachMode::Generic => Some(AttachedMode::Generic),
    };
    if link.released {
        return AttachPlan {
            mode: AttachedMode::Tc,
            reason: AttachReason::Released,
        };
    }
    if let Some(mode) = requested_mode {
        return AttachPlan {
            mode,
            reason: AttachReason::Requested,
        };
    }
    let kind = link.kind.as_deref();
    let driver = link.driver.as_deref();
    let is_one_of = |table: &[&str]| driver.is_some_and(|driver| table.contains(&driver));

    let native_obstacles = [
        (
            kind.or(driver)
                .is_some_and(|name| OFFLOAD_DISABLING_DRIVERS.contains(&name)),
            AttachReason::BreaksOffload,
        ),
        (
            matches!(kind, Some("bond" | "team")),
            AttachReason::BondMaster,
        ),
        (kind.is_some(), AttachReason::VirtualDevice),
        (link.xdp_in_use, AttachReason::XdpTaken),
        (
            link.strips_vlan_tags && (link.has_vlans || !link.filters_vlans),
            AttachReason::VlanOffload,
        ),
        (is_one_of(&LINK_RESETTING_DRIVERS), AttachReason::ResetsLink),
        (!is_one_of(&XDP_DRIVERS), AttachReason::DriverNotListed),
        (
            link.mtu > LARGEST_SINGLE_BUFFER_MTU && !link.multi_buffer,
            AttachReason::Mtu,
        ),
        (link.native_refused, AttachReason::NativeRefused),
    ];
    match native_obstacles.into_iter().find(|(applies, _)| *applies) {
        Some((_, reason)) => AttachPlan {
            mode: AttachedMode::Tc,
            reason,
        },
        None => AttachPlan {
            mode: AttachedMode::Native,
            reason: AttachReason::NativeIsFree,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network card for which `auto` selects native XDP.
    fn card() -> LinkEnvironment {
        LinkEnvironment {
            driver: Some("mlx5_core".to_owned()),
            mtu: 1500,
            strips_vlan_tags: true,
            filters_vlans: true,
            multi_buffer: true,
            ..LinkEnvironment::default()
        }
    }

    fn auto(link: &LinkEnvironment) -> (AttachedMode, AttachReason) {
        let plan = plan_attach(AttachMode::Auto, link);
        (plan.mode, plan.reason)
    }

    fn driver(name: &str) -> LinkEnvironment {
        LinkEnvironment {
            driver: Some(name.to_owned()),
            ..card()
        }
    }

    fn kind(name: &str) -> LinkEnvironment {
        LinkEnvironment {
            kind: Some(name.to_owned()),
            driver: None,
            ..card()
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn each_row_of_the_table_determines_mode_and_reason() {
        for (link, mode, reason) in [
            (card(), AttachedMode::Native, AttachReason::NativeIsFree),
            (kind("veth"), AttachedMode::Tc, AttachReason::BreaksOffload),
            (kind("tun"), AttachedMode::Tc, AttachReason::BreaksOffload),
            (
                driver("virtio_net"),
                AttachedMode::Tc,
                AttachReason::BreaksOffload,
            ),
            (kind("bond"), AttachedMode::Tc, AttachReason::BondMaster),
            (kind("team"), AttachedMode::Tc, AttachReason::BondMaster),
            (
                kind("bridge"),
                AttachedMode::Tc,
                AttachReason::VirtualDevice,
            ),
            (
                kind("macvlan"),
                AttachedMode::Tc,
                AttachReason::VirtualDevice,
            ),
            (
                LinkEnvironment {
                    xdp_in_use: true,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::XdpTaken,
            ),
            (
                LinkEnvironment {
                    has_vlans: true,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::VlanOffload,
            ),
            (
                LinkEnvironment {
                    filters_vlans: false,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::VlanOffload,
            ),
            (
                LinkEnvironment {
                    has_vlans: true,
                    strips_vlan_tags: false,
                    ..card()
                },
                AttachedMode::Native,
                AttachReason::NativeIsFree,
            ),
            (driver("igb"), AttachedMode::Tc, AttachReason::ResetsLink),
            (
                driver("r8169"),
                AttachedMode::Tc,
                AttachReason::DriverNotListed,
            ),
            (
                LinkEnvironment {
                    driver: None,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::DriverNotListed,
            ),
            (
                LinkEnvironment {
                    mtu: 9000,
                    multi_buffer: false,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::Mtu,
            ),
            (
                LinkEnvironment {
                    mtu: 9000,
                    ..card()
                },
                AttachedMode::Native,
                AttachReason::NativeIsFree,
            ),
            (
                LinkEnvironment {
                    native_refused: true,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::NativeRefused,
            ),
            (
                LinkEnvironment {
                    released: true,
                    ..card()
                },
                AttachedMode::Tc,
                AttachReason::Released,
            ),
        ] {
            assert_eq!(auto(&link), (mode, reason), "{link:?}");
        }
    }

    #[test]
    fn only_a_card_that_strips_tags_hides_vlans_from_xdp() {
        let without_offload = LinkEnvironment {
            strips_vlan_tags: false,
            ..card()
        };
        for mode in AttachedMode::ALL {
            assert_eq!(
                card().shows_vlan_tags(mode),
                mode == AttachedMode::Tc,
                "{mode}"
            );
            assert!(without_offload.shows_vlan_tags(mode), "{mode}");
        }
    }

    #[test]
    fn every_driver_of_the_tables_is_in_one_of_them() {
        for name in XDP_DRIVERS {
            assert_eq!(
                auto(&driver(name)),
                (AttachedMode::Native, AttachReason::NativeIsFree),
                "{name}"
            );
        }
        for name in LINK_RESETTING_DRIVERS {
            assert_eq!(
                auto(&driver(name)),
                (AttachedMode::Tc, AttachReason::ResetsLink),
                "{name}"
            );
        }
    }

    #[test]
    fn a_requested_mode_is_used_unless_the_xdp_hook_was_released() {
        let unsuitable = LinkEnvironment {
            xdp_in_use: true,
            has_vlans: true,
            ..kind("veth")
        };
        for (requested, mode) in [
            (AttachMode::Native, AttachedMode::Native),
            (AttachMode::Tc, AttachedMode::Tc),
            (AttachMode::Generic, AttachedMode::Generic),
        ] {
            let expected = AttachPlan {
                mode,
                reason: AttachReason::Requested,
            };
            assert_eq!(plan_attach(requested, &unsuitable), expected);
            let released = LinkEnvironment {
                released: true,
                ..unsuitable.clone()
            };
            assert_eq!(
                plan_attach(requested, &released).reason,
                AttachReason::Released
            );
        }
    }
}
