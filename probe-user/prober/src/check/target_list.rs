//! Targets from a file or from standard input: a list, or the address pools of MetalLB.

use probe_model::escape_untrusted;
use probe_pools::{PoolInventory, YamlMark, manifest};

use super::{InvalidTarget, Target};

/// What a text names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetList {
    /// The targets, in its order.
    pub targets: Vec<Target>,
    /// How many IPv6 networks and ranges of pools were left out.
    pub ipv6: usize,
}

/// Why a text names no targets.
#[derive(Debug, thiserror::Error)]
pub enum TargetListError {
    /// A line of a list.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        error: InvalidTarget,
    },
    /// A part of the YAML.
    #[error("{}{why}", at(*mark))]
    Yaml {
        /// Where.
        mark: Option<YamlMark>,
        /// What is wrong.
        why: String,
    },
    /// YAML without pools.
    #[error("there is no pool of addresses in it, such as an IPAddressPool of MetalLB")]
    NoPools,
    /// Nothing.
    #[error("it names no address")]
    Empty,
}

fn at(mark: Option<YamlMark>) -> String {
    mark.map_or_else(String::new, |mark| {
        format!("line {}, column {}: ", mark.line, mark.column)
    })
}

/// Reads a list, one target a line with `#` for comments, or pools in YAML: whatever `probe pools` reads, also what
/// `kubectl get ipaddresspools -o yaml` prints.
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

/// The addresses of all pools. What cannot be read is an error: a pool that is left out would look checked.
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
        if let Some(fault) = pool.faults.into_iter().next() {
            return Err(TargetListError::Yaml {
                mark: Some(fault.place.mark),
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
                    mark: Some(range.place.mark),
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
    fn a_list_has_a_target_a_line_and_comments() {
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
    fn what_names_nothing_is_an_error_and_no_panic() {
        for (text, why) in [
            ("", "names no address"),
            ("# nothing\n", "names no address"),
            ("kind: ConfigMap\n", "no pool"),
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
