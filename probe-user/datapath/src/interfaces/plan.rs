//! How an interface is watched: a pure decision over what is known about it, with its reason.

use clap::ValueEnum;
use probe_model::watched::{Mode, Plan, Reason};

use crate::attach::LARGEST_SINGLE_BUFFER_MTU;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// Native XDP where it is free, else TC
    #[default]
    Auto,
    /// XDP in the driver
    Native,
    /// TC ingress: gets along with every other program
    Tc,
    /// XDP after the socket buffer is made; costs all traffic
    Generic,
}

/// What the decision goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, one row of a table each"
)]
pub struct Circumstances {
    /// What kind of virtual device it is (`veth`, `bond` …); `None` for hardware.
    pub kind: Option<String>,
    /// The driver behind it, as in `/sys/class/net/NAME/device/driver`.
    pub driver: Option<String>,
    /// Largest frame without the Ethernet header, in bytes.
    pub mtu: u32,
    /// Whether the next two could be read; else they are the worst that there can be.
    pub offloads_known: bool,
    /// Whether the card takes VLAN tags out of frames (`rx-vlan-hw-parse`).
    pub strips_vlan_tags: bool,
    /// Whether the card only lets VLANs in that this host uses (`rx-vlan-filter`, and not promiscuous).
    pub filters_vlans: bool,
    /// Whether there are VLAN children on it.
    pub has_vlans: bool,
    /// Whether somebody else's XDP program is attached.
    pub xdp_taken: bool,
    /// Whether the kernel has multi-buffer XDP (5.18).
    pub multi_buffer: bool,
    /// Whether the driver has refused native XDP before.
    pub native_refused: bool,
    /// Whether an operator released the XDP slot.
    pub released: bool,
}

impl Circumstances {
    /// Whether the VLAN of an arriving frame can be told in this mode.
    pub fn show_vlans(&self, mode: Mode) -> bool {
        !(mode.is_xdp() && self.strips_vlan_tags)
    }
}

/// Devices whose segmentation offload native XDP turns off (`drivers/net/{veth,virtio_net,tun}.c`).
const OFFLOAD_BREAKERS: [&str; 3] = ["veth", "virtio_net", "tun"];

/// Drivers that close and open the device, or drop the carrier, when a program is attached or detached:
/// ports flap, bonds fail over, spanning trees think. Each as of Linux 6.12.
const LINK_LOSERS: [&str; 8] = [
    "igb",           // igb_xdp_setup: igb_close, igb_open
    "igc",           // igc_xdp_set_prog: igc_close, igc_open
    "ixgbe",         // ixgbe_xdp_setup: ixgbe_setup_tc closes and opens
    "ixgbevf",       // ixgbevf_xdp_setup: likewise
    "st_gmac",       // stmmac_xdp_set_prog: netif_carrier_off
    "intel-eth-pci", // the same driver core
    "mvneta",        // mvneta_xdp_setup: mvneta_stop, mvneta_open
    "mvpp2",         // mvpp2_xdp_setup: mvpp2_stop, mvpp2_open
];

/// Drivers that have native XDP and keep the link when a program comes or goes, as of Linux 6.12
/// (`ndo_bpf` in `drivers/net`). They may still reset their rings: rollouts go node by node.
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

/// Decides how an interface is watched. What was asked for by name is done by name, for better or worse;
/// the table below is what `auto` does, first row that fits.
pub fn plan(requested: AttachMode, it: &Circumstances) -> Plan {
    let requested_mode = match requested {
        AttachMode::Auto => None,
        AttachMode::Native => Some(Mode::Native),
        AttachMode::Tc => Some(Mode::Tc),
        AttachMode::Generic => Some(Mode::Generic),
    };
    if it.released {
        return Plan {
            mode: Mode::Tc,
            reason: Reason::Released,
        };
    }
    if let Some(mode) = requested_mode {
        return Plan {
            mode,
            reason: Reason::Requested,
        };
    }
    let kind = it.kind.as_deref();
    let driver = it.driver.as_deref();
    let is_one_of = |table: &[&str]| driver.is_some_and(|driver| table.contains(&driver));

    let against_native = [
        (
            kind.or(driver)
                .is_some_and(|name| OFFLOAD_BREAKERS.contains(&name)),
            Reason::BreaksOffload,
        ),
        (matches!(kind, Some("bond" | "team")), Reason::BondMaster),
        (kind.is_some(), Reason::VirtualDevice),
        (it.xdp_taken, Reason::XdpTaken),
        (
            it.strips_vlan_tags && (it.has_vlans || !it.filters_vlans),
            Reason::VlanOffload,
        ),
        (is_one_of(&LINK_LOSERS), Reason::LosesLink),
        (!is_one_of(&XDP_DRIVERS), Reason::DriverNotListed),
        (
            it.mtu > LARGEST_SINGLE_BUFFER_MTU && !it.multi_buffer,
            Reason::Mtu,
        ),
        (it.native_refused, Reason::NativeRefused),
    ];
    match against_native.into_iter().find(|(applies, _)| *applies) {
        Some((_, reason)) => Plan {
            mode: Mode::Tc,
            reason,
        },
        None => Plan {
            mode: Mode::Native,
            reason: Reason::NativeIsFree,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network card on which `auto` goes native.
    fn card() -> Circumstances {
        Circumstances {
            driver: Some("mlx5_core".to_owned()),
            mtu: 1500,
            strips_vlan_tags: true,
            filters_vlans: true,
            multi_buffer: true,
            ..Circumstances::default()
        }
    }

    fn auto(it: &Circumstances) -> (Mode, Reason) {
        let plan = plan(AttachMode::Auto, it);
        (plan.mode, plan.reason)
    }

    fn driver(name: &str) -> Circumstances {
        Circumstances {
            driver: Some(name.to_owned()),
            ..card()
        }
    }

    fn kind(name: &str) -> Circumstances {
        Circumstances {
            kind: Some(name.to_owned()),
            driver: None,
            ..card()
        }
    }

    #[test]
    fn each_row_of_the_table_decides_with_its_reason() {
        for (it, mode, reason) in [
            (card(), Mode::Native, Reason::NativeIsFree),
            (kind("veth"), Mode::Tc, Reason::BreaksOffload),
            (kind("tun"), Mode::Tc, Reason::BreaksOffload),
            (driver("virtio_net"), Mode::Tc, Reason::BreaksOffload),
            (kind("bond"), Mode::Tc, Reason::BondMaster),
            (kind("team"), Mode::Tc, Reason::BondMaster),
            (kind("bridge"), Mode::Tc, Reason::VirtualDevice),
            (kind("macvlan"), Mode::Tc, Reason::VirtualDevice),
            (
                Circumstances {
                    xdp_taken: true,
                    ..card()
                },
                Mode::Tc,
                Reason::XdpTaken,
            ),
            (
                Circumstances {
                    has_vlans: true,
                    ..card()
                },
                Mode::Tc,
                Reason::VlanOffload,
            ),
            (
                Circumstances {
                    filters_vlans: false,
                    ..card()
                },
                Mode::Tc,
                Reason::VlanOffload,
            ),
            (
                Circumstances {
                    has_vlans: true,
                    strips_vlan_tags: false,
                    ..card()
                },
                Mode::Native,
                Reason::NativeIsFree,
            ),
            (driver("igb"), Mode::Tc, Reason::LosesLink),
            (driver("r8169"), Mode::Tc, Reason::DriverNotListed),
            (
                Circumstances {
                    driver: None,
                    ..card()
                },
                Mode::Tc,
                Reason::DriverNotListed,
            ),
            (
                Circumstances {
                    mtu: 9000,
                    multi_buffer: false,
                    ..card()
                },
                Mode::Tc,
                Reason::Mtu,
            ),
            (
                Circumstances {
                    mtu: 9000,
                    ..card()
                },
                Mode::Native,
                Reason::NativeIsFree,
            ),
            (
                Circumstances {
                    native_refused: true,
                    ..card()
                },
                Mode::Tc,
                Reason::NativeRefused,
            ),
            (
                Circumstances {
                    released: true,
                    ..card()
                },
                Mode::Tc,
                Reason::Released,
            ),
        ] {
            assert_eq!(auto(&it), (mode, reason), "{it:?}");
        }
    }

    #[test]
    fn a_vlan_is_only_hidden_from_xdp_by_a_card_that_strips_tags() {
        let keeps = Circumstances {
            strips_vlan_tags: false,
            ..card()
        };
        for mode in Mode::ALL {
            assert_eq!(card().show_vlans(mode), mode == Mode::Tc, "{mode}");
            assert!(keeps.show_vlans(mode), "{mode}");
        }
    }

    #[test]
    fn every_driver_of_the_tables_is_in_one_of_them() {
        for name in XDP_DRIVERS {
            assert_eq!(
                auto(&driver(name)),
                (Mode::Native, Reason::NativeIsFree),
                "{name}"
            );
        }
        for name in LINK_LOSERS {
            assert_eq!(auto(&driver(name)), (Mode::Tc, Reason::LosesLink), "{name}");
        }
    }

    #[test]
    fn what_is_asked_for_by_name_is_done_unless_the_slot_was_released() {
        let against = Circumstances {
            xdp_taken: true,
            has_vlans: true,
            ..kind("veth")
        };
        for (requested, mode) in [
            (AttachMode::Native, Mode::Native),
            (AttachMode::Tc, Mode::Tc),
            (AttachMode::Generic, Mode::Generic),
        ] {
            let expected = Plan {
                mode,
                reason: Reason::Requested,
            };
            assert_eq!(plan(requested, &against), expected);
            let released = Circumstances {
                released: true,
                ..against.clone()
            };
            assert_eq!(plan(requested, &released).reason, Reason::Released);
        }
    }
}
