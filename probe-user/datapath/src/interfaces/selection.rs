//! Selects the interfaces to watch: by name, by pattern, or by default.

use std::{fmt, str::FromStr};

use glob::Pattern;
use probe_model::{Link, Links};

/// An interface name or a glob pattern (`eth*`, `enp[0-9]s0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    pattern: Pattern,
}

/// The text is neither an interface name nor a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an interface name or pattern: {0}")]
pub struct NamePatternError(String);

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, NamePatternError> {
        let pattern = Pattern::new(text).map_err(|error| NamePatternError(error.to_string()))?;
        if text.is_empty() {
            return Err(NamePatternError("it is empty".to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            pattern,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl NamePattern {
    /// Whether the pattern matches the name.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.matches(name)
    }

    /// The name; `None` if it is a pattern.
    pub fn as_name(&self) -> Option<&str> {
        let is_pattern = self.text.contains(['*', '?', '[']);
        (!is_pattern).then_some(self.text.as_str())
    }
}

/// The selection of interfaces to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSelection {
    /// The interfaces to watch; if empty, the defaults.
    pub include: Vec<NamePattern>,
    /// The interfaces not to watch; takes precedence over `include` and the defaults.
    pub exclude: Vec<NamePattern>,
}

impl InterfaceSelection {
    /// Returns the selected interfaces.
    pub fn select<'a>(&self, links: &'a Links) -> Vec<&'a Link> {
        links
            .iter()
            .filter(|link| link.ethernet)
            .filter(|link| {
                if self.include.is_empty() {
                    is_default_interface(links, link)
                } else {
                    self.include
                        .iter()
                        .any(|pattern| pattern.matches(&link.name))
                }
            })
            .filter(|link| {
                !self
                    .exclude
                    .iter()
                    .any(|pattern| pattern.matches(&link.name))
            })
            .collect()
    }

    /// Returns the requested names that no interface has.
    pub fn missing_names<'a>(&'a self, links: &Links) -> Vec<&'a str> {
        self.include
            .iter()
            .filter_map(NamePattern::as_name)
            .filter(|name| links.named(name).is_none())
            .collect()
    }
}

/// Whether an interface is watched by default: network cards, bond masters instead of their ports, and the interface of
/// the default route. Not the veth of a container, tunnels, the bridge of a container runtime, or interfaces on top of a
/// watched one, because their frames are observed there.
fn is_default_interface(links: &Links, link: &Link) -> bool {
    match link.kind.as_deref() {
        None => link.arp && !is_bond_port(links, link),
        Some("bond" | "team") => true,
        Some(_) => {
            let route = links.default_route();
            route.is_some_and(|route| route.interface == link.index)
                && !is_covered_by_lower(links, link)
        }
    }
}

fn is_bond_port(links: &Links, link: &Link) -> bool {
    let master = link.master.and_then(|master| links.get(master));
    master.is_some_and(|master| matches!(master.kind.as_deref(), Some("bond" | "team")))
}

/// Whether the frames of an interface pass through one that is watched by default: a bridge with a network card as port, a
/// VLAN child or macvlan of a card.
fn is_covered_by_lower(links: &Links, link: &Link) -> bool {
    let parent = link.parent.and_then(|parent| links.get(parent));
    let ports = links.iter().filter(|port| port.master == Some(link.index));
    ports
        .chain(parent)
        .any(|lower| lower.index != link.index && is_default_interface(links, lower))
}

#[cfg(test)]
mod tests {
    use probe_model::DefaultRoute;

    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ethernet: true,
            arp: true,
            ..Link::default()
        }
    }

    fn card(index: u32, name: &str) -> Link {
        link(index, name, None)
    }

    /// The names of the default selection among `links`, with a default route over the interface `route`.
    fn selected(links: impl IntoIterator<Item = Link>, route: Option<u32>) -> Vec<String> {
        let route = route.map(|interface| DefaultRoute {
            interface,
            gateway: None,
        });
        let links = links
            .into_iter()
            .collect::<Links>()
            .with_default_route(route);
        InterfaceSelection::default()
            .select(&links)
            .into_iter()
            .map(|link| link.name.clone())
            .collect()
    }

    #[test]
    fn by_default_every_card_is_watched_and_no_interface_of_containers() {
        let loopback = Link {
            ethernet: false,
            arp: false,
            ..card(1, "lo")
        };
        let links = [
            loopback,
            card(2, "eth0"),
            card(3, "eth1"),
            link(4, "veth1234", Some("veth")),
            link(5, "docker0", Some("bridge")),
            link(6, "vxlan.calico", Some("vxlan")),
            Link {
                arp: false,
                ..link(7, "kube-ipvs0", Some("dummy"))
            },
        ];
        assert_eq!(selected(links, Some(2)), ["eth0", "eth1"]);
    }

    #[test]
    fn a_bond_is_watched_instead_of_its_ports() {
        let port = |index, name| Link {
            master: Some(9),
            ..card(index, name)
        };
        let links = [
            port(2, "eth0"),
            port(3, "eth1"),
            link(9, "bond0", Some("bond")),
        ];
        assert_eq!(selected(links, Some(9)), ["bond0"]);
    }

    #[test]
    fn the_card_below_a_bridge_or_vlan_with_the_default_route_is_watched_not_both() {
        let bridged = [
            Link {
                master: Some(3),
                ..card(2, "eth0")
            },
            link(3, "br0", Some("bridge")),
        ];
        assert_eq!(selected(bridged, Some(3)), ["eth0"]);
        let vlan = Link {
            parent: Some(2),
            vlan: Some(100),
            ..link(3, "eth0.100", Some("vlan"))
        };
        assert_eq!(selected([card(2, "eth0"), vlan], Some(3)), ["eth0"]);
        let bond_vlan = Link {
            parent: Some(2),
            ..link(3, "bond0.100", Some("vlan"))
        };
        assert_eq!(
            selected([link(2, "bond0", Some("bond")), bond_vlan], Some(3)),
            ["bond0"]
        );
    }

    #[test]
    fn a_node_in_a_container_watches_the_veth_with_its_default_route() {
        let links = [
            link(2, "eth0", Some("veth")),
            link(3, "vethabcd", Some("veth")),
        ];
        assert_eq!(selected(links, Some(2)), ["eth0"]);
    }

    #[test]
    fn names_patterns_and_exclusions_select() {
        let links: Links = [card(1, "eth0"), card(2, "eth1"), card(3, "mgmt0")]
            .into_iter()
            .collect();
        let select = |include: &[&str], exclude: &[&str]| {
            let patterns =
                |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let selection = InterfaceSelection {
                include: patterns(include),
                exclude: patterns(exclude),
            };
            let selected = selection
                .select(&links)
                .into_iter()
                .map(|link| link.name.clone());
            selected.collect::<Vec<_>>()
        };
        assert_eq!(select(&["eth*"], &[]), ["eth0", "eth1"]);
        assert_eq!(select(&["eth0", "mgmt?"], &[]), ["eth0", "mgmt0"]);
        assert_eq!(select(&[], &["eth1"]), ["eth0", "mgmt0"]);
        assert_eq!(select(&["eth[1-9]"], &[]), ["eth1"]);
        assert!("eth[".parse::<NamePattern>().is_err());
    }

    #[test]
    fn only_names_can_be_missing() {
        let links: Links = [card(1, "eth0")].into_iter().collect();
        let selection = InterfaceSelection {
            include: ["eth0", "eth9", "wlan*"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            exclude: Vec::new(),
        };
        assert_eq!(selection.missing_names(&links), ["eth9"]);
    }
}
