//! What a MAC address tells of the machine behind it.

use std::{borrow::Cow, fmt::Write as _};

use probe_common::wire::MacAddr;

/// The registered maker, from the registry of the IEEE.
///
/// A locally administered address has none: whoever made the machine up chose it.
pub fn vendor(mac: MacAddr) -> Option<Cow<'static, str>> {
    if is_locally_administered(mac) {
        return None;
    }
    let mut digits = String::with_capacity(12);
    for byte in mac.0 {
        // A string takes every character.
        let _ = write!(digits, "{byte:02X}");
    }
    let name = oui_data::lookup(&digits)?.organization();
    // The registry has line ends and double spaces in some of its names.
    Some(if name.contains(char::is_whitespace) {
        let words: Vec<_> = name.split_whitespace().collect();
        words.join(" ").into()
    } else {
        name.into()
    })
}

/// What a person is told of a MAC address: a protocol's own, a hypervisor's, or its maker.
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
    fn the_maker_is_the_one_in_the_registry_of_the_ieee() {
        let maker = vendor("00:00:00:00:00:01".parse().unwrap());
        assert_eq!(maker.as_deref(), Some("XEROX CORPORATION"));
        // A block of 28 bits goes before the block of 24 bits that it is in.
        let maker = vendor("b8:4c:87:40:00:00".parse().unwrap());
        assert_eq!(maker.as_deref(), Some("Blum Novotest GmbH"));
    }

    #[test]
    fn an_address_that_somebody_made_up_has_no_maker() {
        assert_eq!(vendor("02:00:00:00:00:01".parse().unwrap()), None);
        assert_eq!(
            described("02:00:00:00:00:01"),
            "made up (VM, container or bond)"
        );
    }

    #[test]
    fn addresses_of_protocols_say_which_and_which_group() {
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
    fn no_name_breaks_a_line() {
        for top in 0..=u8::MAX {
            for middle in 0..=u8::MAX {
                let name = vendor(MacAddr([0, top, middle, 0, 0, 0])).unwrap_or_default();
                assert!(!name.contains('\n') && !name.contains("  "), "{name:?}");
            }
        }
    }
}
