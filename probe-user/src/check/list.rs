//! Targets from a file or from standard input: a list, or the address pools of MetalLB.

use std::net::Ipv6Addr;

use serde::Deserialize;

use super::{Target, TargetError};

/// What a text names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The targets, in its order.
    pub targets: Vec<Target>,
    /// How many IPv6 networks and ranges of pools were left out.
    pub ipv6: usize,
}

/// Why a text names no targets.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A line of a list.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        error: TargetError,
    },
    /// The YAML.
    #[error("this is no YAML that can be read: {0}")]
    Yaml(String),
    /// An address of a pool.
    #[error("the pool {pool}: {error}")]
    Pool {
        /// Its name.
        pool: String,
        /// What is wrong.
        error: TargetError,
    },
    /// YAML without pools.
    #[error("there is no IPAddressPool (metallb.io) in it")]
    NoPool,
    /// Nothing.
    #[error("it names no address")]
    Empty,
}

/// Reads a list, one target a line with `#` for comments, or the `IPAddressPool`s in YAML: several documents, or
/// what `kubectl get ipaddresspools -o yaml` prints.
pub fn read_list(text: &str) -> Result<List, ListError> {
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
        return Err(ListError::Empty);
    }
    Ok(list)
}

fn lines(text: &str) -> Result<List, ListError> {
    let mut list = List::default();
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            let target = entry.parse().map_err(|error| ListError::Line {
                line: number,
                error,
            })?;
            list.targets.push(target);
        }
    }
    Ok(list)
}

/// What is read of a manifest; whatever else is in it is somebody else's business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    kind: String,
    metadata: Metadata,
    spec: Option<Spec>,
    items: Vec<Manifest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    addresses: Vec<String>,
}

/// The addresses of all pools.
fn pools(text: &str) -> Result<List, ListError> {
    let options = serde_saphyr::Options::default();
    let manifests: Vec<Option<serde_json::Value>> =
        serde_saphyr::from_multiple_with_options(text, options)
            .map_err(|error| ListError::Yaml(error.to_string()))?;
    let mut list = List::default();
    let mut found = false;
    for manifest in manifests.into_iter().flatten() {
        // A document that does not look like a manifest of a pool is none.
        let manifest: Manifest = serde_json::from_value(manifest).unwrap_or_default();
        for pool in manifest.items.iter().chain([&manifest]) {
            let (Some(spec), "IPAddressPool") = (&pool.spec, pool.kind.as_str()) else {
                continue;
            };
            found = true;
            for text in &spec.addresses {
                match text.parse() {
                    Ok(target) => list.targets.push(target),
                    Err(TargetError::Ipv6(_)) => list.ipv6 += 1,
                    Err(_) if is_ipv6(text) => list.ipv6 += 1,
                    Err(error) => {
                        let pool = pool.metadata.name.clone();
                        return Err(ListError::Pool { pool, error });
                    }
                }
            }
        }
    }
    if found {
        Ok(list)
    } else {
        Err(ListError::NoPool)
    }
}

fn is_ipv6(text: &str) -> bool {
    let first = text.split(['-', '/']).next().unwrap_or_default();
    first.trim().parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<String> {
        let list = read_list(text).unwrap();
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
        let error = read_list("192.0.2.7\n192.0.2.300\n").unwrap_err();
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
        assert_eq!(read_list(documents).unwrap().ipv6, 1);
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: metallb.io/v1beta1\n  kind: IPAddressPool\n  \
            spec:\n    addresses: [\"192.0.2.7/32\"]\n";
        assert_eq!(targets(list), ["192.0.2.7"]);
    }

    #[test]
    fn what_names_nothing_is_an_error_and_no_panic() {
        for (text, why) in [
            ("", "names no address"),
            ("# nothing\n", "names no address"),
            ("kind: ConfigMap\n", "no IPAddressPool"),
            ("kind: [\n", "no YAML"),
            ("kind: &a [*a]\n", ""),
            (
                "kind: IPAddressPool\nmetadata: {name: p}\nspec: {addresses: [nonsense]}\n",
                "the pool p",
            ),
        ] {
            let error = read_list(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
