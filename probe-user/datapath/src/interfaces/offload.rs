//! Reads the offloads and the driver of a network card. Neither is ever changed.

use std::{ffi::OsStr, fs, io, path::Path};

use ethtool::{EthtoolAttr, EthtoolFeatureAttr, EthtoolFeatureBit};
use futures_util::TryStreamExt as _;

/// The offloads that affect VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The card strips VLAN tags from frames (`rx-vlan-offload` in ethtool(8)).
    pub strips_vlan_tags: bool,
    /// The card only accepts frames of VLANs that this host uses (`rx-vlan-filter`).
    pub filters_vlans: bool,
}

/// Reads the offloads of an interface; `None` if they cannot be read. A device without features has no offloads.
pub async fn read(interface: &str) -> Option<Offloads> {
    match features(interface).await {
        Ok(active) => Some(Offloads::from_active(&active)),
        Err(error) => {
            tracing::debug!(interface, %error, "cannot read the offloads");
            None
        }
    }
}

impl Offloads {
    /// The offloads to assume if they cannot be read: no frame is assigned to a wrong VLAN then.
    pub const WORST: Self = Self {
        strips_vlan_tags: true,
        filters_vlans: false,
    };

    fn from_active(active: &[EthtoolFeatureBit]) -> Self {
        // The names of `netdev_features_strings` in net/ethtool/common.c.
        let is_on = |name| active.iter().any(|bit| bit.name == name && bit.value);
        Self {
            strips_vlan_tags: is_on("rx-vlan-hw-parse"),
            filters_vlans: is_on("rx-vlan-filter"),
        }
    }
}

async fn features(interface: &str) -> anyhow::Result<Vec<EthtoolFeatureBit>> {
    let (connection, mut handle, _) = ethtool::new_connection()?;
    let connection = tokio::spawn(connection);
    let messages = handle
        .feature()
        .get(Some(interface))
        .execute()
        .await?
        .try_collect::<Vec<_>>()
        .await;
    connection.abort();
    Ok(messages?
        .into_iter()
        .flat_map(|message| message.payload.nlas)
        .find_map(|attribute| match attribute {
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
            _ => None,
        })
        .unwrap_or_default())
}

/// The name of the driver of an interface; `None` for virtual interfaces.
///
/// # Errors
///
/// The error of reading the link in sysfs; the interface may have a driver nevertheless.
pub fn driver(interface: &str) -> io::Result<Option<String>> {
    let link = Path::new("/sys/class/net")
        .join(interface)
        .join("device/driver");
    let target = match fs::read_link(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        target => target?,
    };
    let name = target.file_name().and_then(OsStr::to_str);
    Ok(name.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enabled_features_are_offloads() {
        let bit = |name: &str, value| EthtoolFeatureBit {
            index: 0,
            name: name.to_owned(),
            value,
        };
        let active = [
            bit("rx-vlan-hw-parse", true),
            bit("rx-vlan-filter", false),
            bit("rx-gro", true),
        ];
        assert_eq!(
            Offloads::from_active(&active),
            Offloads {
                strips_vlan_tags: true,
                filters_vlans: false
            }
        );
    }
}
