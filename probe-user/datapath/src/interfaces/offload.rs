//! What a network card does to frames before the kernel sees them. Only read, never changed.

use std::{ffi::OsStr, fs, io, path::Path};

use ethtool::{EthtoolAttr, EthtoolFeatureAttr, EthtoolFeatureBit};
use futures_util::TryStreamExt as _;

/// The offloads that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// VLAN tags are taken out of frames (`rx-vlan-offload` in ethtool(8)).
    pub strips_vlan_tags: bool,
    /// Only VLANs that this host uses are let in (`rx-vlan-filter`).
    pub filters_vlans: bool,
}

/// Reads the offloads of an interface; `None` if the kernel does not say. A device that has no feature to
/// speak of has no offloads.
pub async fn read(interface: &str) -> Option<Offloads> {
    match features(interface).await {
        Ok(active) => Some(Offloads::from_active(&active)),
        Err(error) => {
            tracing::debug!(interface, %error, "offloads not read");
            None
        }
    }
}

impl Offloads {
    /// What to assume where they cannot be read: nothing is judged in the wrong VLAN then.
    pub const WORST: Self = Self {
        strips_vlan_tags: true,
        filters_vlans: false,
    };

    fn from_active(active: &[EthtoolFeatureBit]) -> Self {
        // The kernel's own names, `netdev_features_strings` in net/ethtool/common.c.
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

/// The name of the driver behind an interface; virtual ones have none.
///
/// # Errors
///
/// It could not be read, which does not mean that there is none.
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
    fn only_features_that_are_on_count() {
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
