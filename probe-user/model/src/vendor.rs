//! The vendor or the kind of a MAC address.

use std::{borrow::Cow, fmt::Write as _};

use probe_common::wire::MacAddr;

/// The vendor of a MAC address, from the registry of the IEEE; `None` for locally administered addresses.
pub fn vendor(mac: MacAddr) -> Option<Cow<'static, str>> {
    if is_locally_administered(mac) {
        return None;
    }
    let mut digits = String::with_capacity(12);
    for byte in mac.0 {
        // Writing to a String does not fail.
        let _ = write!(digits, "{byte:02X}");
    }
    let name = oui_data::lookup(&digits)?.organization();
    // Some names in the registry have line breaks and double spaces.
    Some(if name.contains(char::is_whitespace) {
        let words: Vec<_> = name.split_whitespace().collect();
        words.join(" ").into()
    } else {
        name.into()
    })
}

/// Describes a MAC address by its protocol, its hypervisor or its vendor.
pub fn describe(mac: MacAddr) -> Cow<'static, str> {
    match mac.0 {
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, group] => {
            format!("virtual router (VRRP or CARP), group {group}").into()
        }
        [0x00, 0x00, 0x0c, 0x07, 0xac, group] => {
            format!("virtual router (HSRP), group {group}").into()
        }
        [0x00, 0x00, 0x0c, 0x9f, high, low] if high >> 4 == 0xf => {
            let group = u16::from_be_bytes([high & 0xf, low]);
            format!("virtual router (HSRP), group {group}").into()
        }
        [0x00, 0x07, 0xb4, ..] => "virtual router (GLBP)".into(),
        [0x52, 0x54, 0x00, ..] => "virtual machine (QEMU, KVM)".into(),
        [0x02, 0x42, ..] => "container (Docker)".into(),
        [0x02 | 0x03, 0xbf, ..] => "cluster (Microsoft NLB)".into(),
        _ if is_locally_administered(mac) => "made up (VM, container or bond)".into(),
        _ => vendor(mac).unwrap_or("maker unknown".into()),
    }
}

const fn is_locally_administered(mac: MacAddr) -> bool {
    mac.0[0] & 0b10 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(mac: &str) -> String {
        describe(mac.parse().unwrap()).into_owned()
    }

    #[test]
    fn the_vendor_is_that_of_the_ieee_registry() {
        let name = vendor("00:00:00:00:00:01".parse().unwrap());
        assert_eq!(name.as_deref(), Some("XEROX CORPORATION"));
        // A block of 28 bits takes precedence over the block of 24 bits that contains it.
        let name = vendor("b8:4c:87:40:00:00".parse().unwrap());
        assert_eq!(name.as_deref(), Some("Blum Novotest GmbH"));
    }

    #[test]
    fn a_locally_administered_address_has_no_vendor() {
        assert_eq!(vendor("02:00:00:00:00:01".parse().unwrap()), None);
        assert_eq!(
            described("02:00:00:00:00:01"),
            "made up (VM, container or bond)"
        );
    }

    #[test]
    fn addresses_of_protocols_are_described_with_protocol_and_group() {
        assert_eq!(
            described("00:00:5e:00:01:33"),
            "virtual router (VRRP or CARP), group 51"
        );
        assert_eq!(
            described("00:00:0c:07:ac:05"),
            "virtual router (HSRP), group 5"
        );
        assert_eq!(
            described("00:00:0c:9f:f1:02"),
            "virtual router (HSRP), group 258"
        );
        assert_eq!(
            described("52:54:00:12:34:56"),
            "virtual machine (QEMU, KVM)"
        );
    }

    #[test]
    fn no_vendor_name_contains_a_line_break() {
        for top in 0..=u8::MAX {
            for middle in 0..=u8::MAX {
                let name = vendor(MacAddr([0, top, middle, 0, 0, 0])).unwrap_or_default();
                assert!(!name.contains('\n') && !name.contains("  "), "{name:?}");
            }
        }
    }
}
