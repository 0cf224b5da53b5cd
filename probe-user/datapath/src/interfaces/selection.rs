//! Which interfaces are watched: by name, by pattern, or by what is worth watching on a host.

use std::{fmt, str::FromStr};

use glob::Pattern;
use probe_model::{Link, Links};

/// A name, or a pattern of names (`eth*`, `enp[0-9]s0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    pattern: Pattern,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name or pattern of interfaces: {0}")]
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
    /// Whether it matches the name.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.matches(name)
    }

    /// The name, if it is one and no pattern.
    pub fn as_name(&self) -> Option<&str> {
        let is_pattern = self.text.contains(['*', '?', '[']);
        (!is_pattern).then_some(self.text.as_str())
    }
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSelection {
    /// Watched; if empty, what is worth watching.
    pub include: Vec<NamePattern>,
    /// Not watched, whatever else says so.
    pub exclude: Vec<NamePattern>,
}

impl InterfaceSelection {
    /// The selected interfaces.
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

    /// The names asked for that no interface has.
    pub fn missing_names<'a>(&'a self, links: &Links) -> Vec<&'a str> {
        self.include
            .iter()
            .filter_map(NamePattern::as_name)
            .filter(|name| links.named(name).is_none())
            .collect()
    }
}

/// The default: every network card, bond masters instead of their ports, and what carries the default
/// route. Not a container's end of a cable, a tunnel, a container runtime's bridge, or what is stacked on
/// a watched interface: its frames pass there.
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

/// Whether its frames pass an interface that is watched by default: a bridge with a network card as port,
/// a VLAN child or macvlan of a card.
fn is_covered_by_lower(links: &Links, link: &Link) -> bool {
    let parent = link.parent.and_then(|parent| links.get(parent));
    let ports = links.iter().filter(|port| port.master == Some(link.index));
    ports
        .chain(parent)
        .any(|below| below.index != link.index && is_default_interface(links, below))
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

    /// Names of the default selection among these, with a default route over `route`.
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
    fn by_default_every_card_is_watched_and_nothing_of_containers() {
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
    fn names_patterns_and_exclusions_choose() {
        let links: Links = [card(1, "eth0"), card(2, "eth1"), card(3, "mgmt0")]
            .into_iter()
            .collect();
        let choose = |include: &[&str], exclude: &[&str]| {
            let patterns =
                |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let selection = InterfaceSelection {
                include: patterns(include),
                exclude: patterns(exclude),
            };
            let chosen = selection
                .select(&links)
                .into_iter()
                .map(|link| link.name.clone());
            chosen.collect::<Vec<_>>()
        };
        assert_eq!(choose(&["eth*"], &[]), ["eth0", "eth1"]);
        assert_eq!(choose(&["eth0", "mgmt?"], &[]), ["eth0", "mgmt0"]);
        assert_eq!(choose(&[], &["eth1"]), ["eth0", "mgmt0"]);
        assert_eq!(choose(&["eth[1-9]"], &[]), ["eth1"]);
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
