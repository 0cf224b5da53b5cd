//! Filters for findings, claims and bindings.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use probe_common::wire::{MacAddr, Vlan};
use probe_datapath::interfaces::NamePattern;
use probe_model::{
    AddressContext, BindingRecord, ClaimRecord, FindingKind, FindingRecord, NamespacedName,
    OwnerRecord, Severity,
};

/// A filter. Values of one type are alternatives, and an empty list matches everything; all types must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Names of interfaces, with `*` and `?`.
    pub interfaces: Vec<NamePattern>,
    /// Names of excluded interfaces, which take precedence.
    pub excluded: Vec<NamePattern>,
    /// Addresses and networks.
    pub networks: Vec<IpNet>,
    /// MACs and MAC prefixes.
    pub macs: Vec<MacPrefix>,
    /// VLANs.
    pub vlans: Vec<Vlan>,
    /// Services, and namespaces of services.
    pub services: Vec<ServicePattern>,
    /// Kinds of finding.
    pub kinds: Vec<FindingKind>,
    /// The minimum severity of a finding.
    pub severity: Option<Severity>,
}

impl RecordFilter {
    /// Whether a finding matches.
    pub fn matches_finding(&self, record: &FindingRecord) -> bool {
        one_of(&self.kinds, |&kind| kind == record.finding)
            && self.severity.is_none_or(|least| record.severity >= least)
            && self.matches_segment(&record.interface, record.vlan)
            && self.matches_address(record.ip)
            && self.matches_owners(&record.owners)
            && self.matches_service(record.cluster.as_deref())
    }

    /// Whether a claim matches. Claims have no service.
    pub fn matches_claim(&self, record: &ClaimRecord) -> bool {
        self.matches_segment(&record.interface, record.vlan)
            && self.matches_address(record.ip)
            && one_of(&self.macs, |mac| mac.matches(record.mac))
    }

    /// Whether a binding matches. Kind and severity are ignored.
    pub fn matches_binding(&self, record: &BindingRecord) -> bool {
        self.matches_segment(&record.interface, record.vlan)
            && self.matches_address(record.ip)
            && self.matches_owners(&record.owners)
            && self.matches_service(record.cluster.as_deref())
    }

    /// Whether an interface matches.
    pub fn matches_interface(&self, name: &str) -> bool {
        one_of(&self.interfaces, |pattern| pattern.matches(name))
            && !self.excluded.iter().any(|pattern| pattern.matches(name))
    }

    fn matches_segment(&self, interface: &str, vlan: Vlan) -> bool {
        self.matches_interface(interface) && one_of(&self.vlans, |&wanted| wanted == vlan)
    }

    fn matches_address(&self, ip: IpAddr) -> bool {
        one_of(&self.networks, |network| network.contains(&ip))
    }

    fn matches_owners(&self, owners: &[OwnerRecord]) -> bool {
        let mut macs = owners.iter().flat_map(|owner| &owner.macs);
        self.macs.is_empty() || macs.any(|&mac| one_of(&self.macs, |wanted| wanted.matches(mac)))
    }

    fn matches_service(&self, known: Option<&AddressContext>) -> bool {
        let mut services = known.into_iter().flat_map(|known| &known.services);
        self.services.is_empty()
            || services.any(|service| one_of(&self.services, |wanted| wanted.matches(service)))
    }

    /// The query string for a request to the daemon, including `?`; empty if everything matches.
    pub fn to_query(&self) -> String {
        let lists = [
            ("interface", join_values(&self.interfaces)),
            ("exclude", join_values(&self.excluded)),
            ("ip", join_values(&self.networks)),
            ("mac", join_values(&self.macs)),
            ("vlan", join_values(&self.vlans)),
            ("service", join_values(&self.services)),
            ("kind", join_values(&self.kinds)),
            ("severity", join_values(self.severity.as_slice())),
        ];
        let given = lists.iter().filter(|(_, value)| !value.is_empty());
        let parameters: Vec<_> = given
            .map(|(name, value)| format!("{name}={}", percent_encode(value)))
            .collect();
        if parameters.is_empty() {
            String::new()
        } else {
            format!("?{}", parameters.join("&"))
        }
    }

    /// Parses the parameters of a query. Other parameters are ignored.
    ///
    /// # Errors
    ///
    /// The first invalid value.
    pub fn from_query<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (name, value) in parameters {
            match name {
                "interface" => filter.interfaces = parse_list(value, |word| word.parse().ok())?,
                "exclude" => filter.excluded = parse_list(value, |word| word.parse().ok())?,
                "ip" => filter.networks = parse_list(value, |word| network(word).ok())?,
                "mac" => filter.macs = parse_list(value, |word| word.parse().ok())?,
                "vlan" => filter.vlans = parse_list(value, |word| word.parse().ok())?,
                "service" => filter.services = parse_list(value, |word| word.parse().ok())?,
                "kind" => filter.kinds = parse_list(value, FindingKind::from_label)?,
                "severity" => filter.severity = parse_list(value, Severity::from_label)?.pop(),
                _ => {}
            }
        }
        Ok(filter)
    }
}

/// Parses an address or a network.
///
/// # Errors
///
/// If the text is neither.
pub fn network(text: &str) -> Result<IpNet, FilterError> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address());
    network
        .map(|network| network.trunc())
        .map_err(|_| FilterError(text.to_owned()))
}

/// An invalid filter value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot filter by {0:?}")]
pub struct FilterError(String);

/// A service, or all services of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePattern {
    namespace: String,
    name: Option<String>,
}

impl ServicePattern {
    /// Whether a service matches.
    pub fn matches(&self, service: &NamespacedName) -> bool {
        let name = self.name.as_deref();
        self.namespace == service.namespace && name.is_none_or(|name| name == service.name)
    }
}

/// The error for an invalid service pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not NAMESPACE/NAME like shop/frontend, nor NAMESPACE/ for all services of one")]
pub struct ServicePatternError;

impl FromStr for ServicePattern {
    type Err = ServicePatternError;

    fn from_str(text: &str) -> Result<Self, ServicePatternError> {
        let (namespace, name) = text.split_once('/').ok_or(ServicePatternError)?;
        let is_strange = |c: char| c == '/' || c == ',' || c.is_whitespace();
        if namespace.is_empty() || text.replacen('/', "", 1).contains(is_strange) {
            return Err(ServicePatternError);
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: (!name.is_empty()).then(|| name.to_owned()),
        })
    }
}

impl fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        write!(f, "{}/{name}", self.namespace)
    }
}

/// The first bytes of a MAC, or a whole MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPrefix {
    bytes: [u8; 6],
    length: usize,
}

impl MacPrefix {
    /// Whether a MAC has this prefix.
    pub fn matches(&self, mac: MacAddr) -> bool {
        mac.0[..self.length] == self.bytes[..self.length]
    }
}

/// The error for an invalid MAC prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address or prefix: one to six hexadecimal bytes like 00:00:5e")]
pub struct MacPrefixError;

impl FromStr for MacPrefix {
    type Err = MacPrefixError;

    fn from_str(text: &str) -> Result<Self, MacPrefixError> {
        let mut prefix = Self {
            bytes: [0; 6],
            length: 0,
        };
        for part in text.trim_end_matches(':').split([':', '-']) {
            let byte = prefix.bytes.get_mut(prefix.length).ok_or(MacPrefixError)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacPrefixError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacPrefixError)?;
            prefix.length += 1;
        }
        Ok(prefix)
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.bytes[..self.length].iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// Whether any of the wanted values matches, or there are none.
fn one_of<T>(wanted: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

fn join_values(values: &[impl ToString]) -> String {
    let words: Vec<_> = values.iter().map(ToString::to_string).collect();
    words.join(",")
}

fn parse_list<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, FilterError> {
    let read = |word: &str| read(word).ok_or_else(|| FilterError(word.to_owned()));
    value
        .split(',')
        .filter(|word| !word.is_empty())
        .map(read)
        .collect()
}

/// Percent-encodes a value for a query (RFC 3986).
fn percent_encode(value: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:,".contains(&byte);
    let letters = value.bytes().map(|byte| {
        if harmless(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &[(&str, &str)]) -> RecordFilter {
        RecordFilter::from_query(query.iter().copied()).unwrap()
    }

    fn finding() -> FindingRecord {
        serde_json::from_str(
            r#"{"time":"2026-11-20T02:13:07Z","finding":"conflict","severity":"warning",
                "interface":"eth0","vlan":"100","ip":"192.0.2.10","since":"2026-11-20T02:13:06Z",
                "owners":[{"macs":["02:00:00:00:00:0b"],"role":"current","local":false,
                "first_seen":"2026-11-20T02:13:06Z","last_seen":"2026-11-20T02:13:07Z","claims":3},
                {"macs":["00:00:5e:00:01:33"],"role":"earlier","local":false,
                "first_seen":"2026-11-20T02:13:06Z","last_seen":"2026-11-20T02:13:07Z","claims":3}],
                "evidence":"duplicate_reply","counts":{"duplicate_replies":1,"returns":0,"local":0,
                "confirmed":0,"suppressed":0}}"#,
        )
        .unwrap()
    }

    #[test]
    fn without_a_filter_everything_is_wanted() {
        assert!(RecordFilter::default().matches_finding(&finding()));
        assert!(RecordFilter::default().matches_interface("anything"));
    }

    #[test]
    fn filters_of_different_types_are_anded_and_of_one_type_are_ored() {
        let record = finding();
        for (query, wanted) in [
            (&[("interface", "eth*")][..], true),
            (&[("interface", "bond0,eth?")], true),
            (&[("interface", "bond0")], false),
            (&[("exclude", "eth0")], false),
            (&[("exclude", "eth1,veth*")], true),
            (&[("ip", "192.0.2.10")], true),
            (&[("ip", "192.0.2.0/24")], true),
            (&[("ip", "192.0.2.77/24")], true),
            (&[("ip", "198.51.100.0/24")], false),
            (&[("ip", "2001:db8::/32")], false),
            (&[("mac", "02:00:00:00:00:0b")], true),
            (&[("mac", "00:00:5E")], true),
            (&[("mac", "52:54")], false),
            (&[("vlan", "100")], true),
            (&[("vlan", "0,100.200")], false),
            (&[("kind", "moved,conflict")], true),
            (&[("kind", "moved")], false),
            (&[("severity", "notice")], true),
            (&[("severity", "critical")], false),
            (&[("kind", "conflict"), ("vlan", "7")], false),
        ] {
            assert_eq!(filter(query).matches_finding(&record), wanted, "{query:?}");
        }
    }

    #[test]
    fn service_filter_accepts_a_name_or_a_whole_namespace() {
        let mut record = finding();
        record.cluster = serde_json::from_str(
            r#"{"services":[{"namespace":"shop","name":"api"},{"namespace":"shop","name":"frontend"}],
                "announced":"layer2"}"#,
        )
        .unwrap();
        for (wanted, fits) in [
            ("shop/frontend", true),
            ("bank/frontend,shop/api", true),
            ("shop/", true),
            ("shop/front", false),
            ("bank/", false),
        ] {
            let filter = filter(&[("service", wanted)]);
            assert_eq!(filter.matches_finding(&record), fits, "{wanted}");
            assert!(!filter.matches_finding(&finding()), "without a service");
        }
    }

    #[test]
    fn filter_round_trips_through_the_query_string() {
        assert_eq!(RecordFilter::default().to_query(), "");
        let filter = filter(&[
            ("interface", "eth*,bond[0-3]"),
            ("ip", "192.0.2.0/24,2001:db8::1"),
            ("mac", "02:00,00:00:5e:00:01:33"),
            ("vlan", "0,100.200"),
            ("service", "shop/frontend,bank/"),
            ("kind", "conflict,moved"),
            ("severity", "warning"),
        ]);
        let query = filter.to_query();
        assert!(
            query.is_ascii() && !query.contains(['*', ' ', '[', '/']),
            "{query}"
        );
        let read: std::collections::HashMap<String, String> =
            axum::extract::Query::try_from_uri(&format!("/{query}").parse().unwrap())
                .unwrap()
                .0;
        let read = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(RecordFilter::from_query(read).unwrap(), filter);
    }

    #[test]
    fn invalid_filter_is_reported() {
        for (name, value) in [
            ("ip", "192.0.2"),
            ("mac", "0g"),
            ("mac", "1:2:3:4:5:6:7"),
            ("vlan", "4095"),
            ("service", "frontend"),
            ("service", "/frontend"),
            ("service", "a/b/c"),
            ("kind", "conflicts"),
            ("severity", "high"),
            ("interface", "[a"),
        ] {
            let error = RecordFilter::from_query([(name, value)]).unwrap_err();
            assert_eq!(error, FilterError(value.to_owned()));
        }
    }
}
