//! Parses targets from a file or standard input: a list, or address pools of MetalLB in YAML.

use probe_model::escape_untrusted;
use probe_pools::{PoolInventory, YamlMark, manifest};

use super::{InvalidTarget, Target};

/// The targets of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetList {
    /// The targets, in the order of the file.
    pub targets: Vec<Target>,
    /// The number of excluded IPv6 networks and ranges of pools.
    pub ipv6: usize,
}

/// Why a file has no valid targets.
#[derive(Debug, thiserror::Error)]
pub enum TargetListError {
    /// A line of a list is not a valid target.
    #[error("line {line}: {error}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The error.
        error: InvalidTarget,
    },
    /// The YAML is not valid.
    #[error("{}{why}", at(*mark))]
    Yaml {
        /// The position, if known.
        mark: Option<YamlMark>,
        /// The error.
        why: String,
    },
    /// The YAML has no address pool.
    #[error("no address pool in the file, such as an IPAddressPool of MetalLB")]
    NoPools,
    /// The file has no target.
    #[error("no address in the file")]
    Empty,
}

fn at(mark: Option<YamlMark>) -> String {
    mark.map_or_else(String::new, |mark| {
        format!("line {}, column {}: ", mark.line, mark.column)
    })
}

/// Parses a list with one target per line and `#` for comments, or pools in YAML: any input of `probe pools`, and the output
/// of `kubectl get ipaddresspools -o yaml`.
pub fn parse_target_list(text: &str) -> Result<TargetList, TargetListError> {
    let is_yaml = text
        .lines()
        .map(|line| line.trim_start_matches(['-', ' ']))
        .any(|line| {
            ["apiVersion:", "kind:"]
                .iter()
                .any(|key| line.starts_with(key))
        });
    let list = if is_yaml { pools(text)? } else { lines(text)? };
    if list.targets.is_empty() && list.ipv6 == 0 {
        return Err(TargetListError::Empty);
    }
    Ok(list)
}

fn lines(text: &str) -> Result<TargetList, TargetListError> {
    let mut list = TargetList::default();
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            let target = entry.parse().map_err(|error| TargetListError::Line {
                line: number,
                error,
            })?;
            list.targets.push(target);
        }
    }
    Ok(list)
}

/// The addresses of all pools. Invalid pools are errors, because an ignored pool would seem to be checked.
fn pools(text: &str) -> Result<TargetList, TargetListError> {
    let mut inventory = PoolInventory::default();
    manifest::read(&mut inventory, "", "", text);
    if let Some(unread) = inventory.unread.into_iter().next() {
        return Err(TargetListError::Yaml {
            mark: unread.mark,
            why: escape_untrusted(&unread.error.to_string()).into_owned(),
        });
    }
    if inventory.pools.is_empty() {
        return Err(TargetListError::NoPools);
    }
    let mut list = TargetList::default();
    for pool in inventory.pools {
        if let Some(fault) = pool.invalid_ranges.into_iter().next() {
            return Err(TargetListError::Yaml {
                mark: Some(fault.location.mark),
                why: escape_untrusted(&fault.error.to_string()).into_owned(),
            });
        }
        for range in pool.ranges {
            if range.interval.first().is_ipv6() {
                list.ipv6 += 1;
                continue;
            }
            let interval = range.interval;
            let target = format!("{}-{}", interval.first(), interval.last()).parse();
            list.targets.push(
                target.map_err(|error: InvalidTarget| TargetListError::Yaml {
                    mark: Some(range.location.mark),
                    why: error.to_string(),
                })?,
            );
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<String> {
        let list = parse_target_list(text).unwrap();
        list.targets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_has_one_target_per_line_and_comments() {
        assert_eq!(
            targets("# ours\n192.0.2.7\n\n198.51.100.0/30 # pool\n192.0.2.10-12\n"),
            [
                "192.0.2.7",
                "198.51.100.0-198.51.100.3",
                "192.0.2.10-192.0.2.12"
            ]
        );
        let error = parse_target_list("192.0.2.7\n192.0.2.300\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2:"), "{error}");
    }

    #[test]
    fn pools_are_found_in_several_documents_and_in_lists() {
        let documents = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: metallb-system}\n---\n\
            apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: first\nspec:\n  addresses:\n  \
            - 192.0.2.0/30\n  - 192.0.2.10-192.0.2.12\n  - 2001:db8::/120\n  autoAssign: false\n---\n\
            apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nspec: {ipAddressPools: [first]}\n";
        assert_eq!(
            targets(documents),
            ["192.0.2.0-192.0.2.3", "192.0.2.10-192.0.2.12"]
        );
        assert_eq!(parse_target_list(documents).unwrap().ipv6, 1);
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: metallb.io/v1beta1\n  kind: IPAddressPool\n  \
            spec:\n    addresses: [\"192.0.2.7/32\"]\n";
        assert_eq!(targets(list), ["192.0.2.7"]);
    }

    #[test]
    fn a_file_without_targets_is_an_error() {
        for (text, why) in [
            ("", "no address in the file"),
            ("# nothing\n", "no address in the file"),
            ("kind: ConfigMap\n", "no address pool"),
            ("kind: [\n", "not YAML"),
            ("kind: &a [*a]\n", ""),
            (
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nspec: {addresses: [nonsense]}\n",
                "line 3, column",
            ),
        ] {
            let error = parse_target_list(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
