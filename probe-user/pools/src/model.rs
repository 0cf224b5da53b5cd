//! The inventory: clusters, their pools and advertisements.

use std::collections::HashMap;

use probe_common::label_enum;

use super::{
    interval::{self, Interval, IntervalError, RangeNotation},
    yaml::{ManifestYamlError, YamlMark},
};

/// Maximum number of ranges, labels and names; only hostile files have more.
const MAX_RANGES: usize = 1_000_000;
/// The number of bytes of text that count as one range, so that long texts are bounded as well.
const TEXT_OF_A_RANGE: usize = 16;

/// The number of parts that a text counts for.
pub const fn parts_of(text: &str) -> usize {
    text.len() / TEXT_OF_A_RANGE
}

/// A location in a file. Ordered by the order of reading, then by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceLocation {
    /// The index of the file.
    pub file: usize,
    /// The line and column.
    pub mark: YamlMark,
}

label_enum! {
    /// The kind of object that defines a pool.
    pub enum PoolKind {
        /// MetalLB's custom resource.
        IpAddressPool = "IPAddressPool",
        /// MetalLB's former custom resource.
        AddressPool = "AddressPool",
        /// MetalLB's configuration before custom resources.
        MetallbConfigMap = "metallb ConfigMap",
        /// Cilium's custom resource.
        Cilium = "CiliumLoadBalancerIPPool",
        /// An entry of the ConfigMap of kube-vip's cloud provider.
        KubeVip = "kube-vip ConfigMap",
    }
}

impl PoolKind {
    /// Whether MetalLB assigns its addresses.
    pub const fn is_metallb(self) -> bool {
        match self {
            Self::IpAddressPool | Self::AddressPool | Self::MetallbConfigMap => true,
            Self::Cilium | Self::KubeVip => false,
        }
    }

    /// Whether the pool is a custom resource, not an entry of a `ConfigMap`.
    pub const fn is_resource(self) -> bool {
        match self {
            Self::IpAddressPool | Self::AddressPool | Self::Cilium => true,
            Self::MetallbConfigMap | Self::KubeVip => false,
        }
    }
}

/// A range with its notation, text and location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenRange {
    /// Its addresses.
    pub interval: Interval,
    /// Its notation.
    pub notation: RangeNotation,
    /// The text as written.
    pub text: String,
    /// Its location.
    pub location: SourceLocation,
}

impl WrittenRange {
    /// Parses a range at a location.
    pub fn parse(text: &str, location: SourceLocation) -> Result<Self, InvalidRangeEntry> {
        match Interval::parse(text) {
            Ok((interval, notation)) => Ok(Self {
                interval,
                notation,
                text: text.to_owned(),
                location,
            }),
            Err(error) => Err(InvalidRangeEntry {
                text: text.chars().take(interval::MAX_TEXT_BYTES).collect(),
                location,
                error,
            }),
        }
    }
}

/// An entry that is not a valid range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRangeEntry {
    /// The text as written, truncated to the maximum length of a range.
    pub text: String,
    /// Its location.
    pub location: SourceLocation,
    /// The error.
    pub error: IntervalError,
}

/// Key and value pairs of an object.
pub type Labels = HashMap<String, String>;

/// An address pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The index of its cluster.
    pub cluster: usize,
    /// The kind of object that defines it.
    pub kind: PoolKind,
    /// Its namespace, if set.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The location of its name.
    pub location: SourceLocation,
    /// Its ranges.
    pub ranges: Vec<WrittenRange>,
    /// Its invalid ranges.
    pub invalid_ranges: Vec<InvalidRangeEntry>,
    /// Whether its addresses are assigned automatically.
    pub auto_assign: bool,
    /// Whether addresses that end in .0 and .255 are reserved.
    pub avoid_buggy_ips: bool,
}

label_enum! {
    /// The kind of an advertisement.
    pub enum AdvertisementKind {
        /// By ARP and neighbour discovery.
        L2 = "L2Advertisement",
        /// By BGP.
        Bgp = "BGPAdvertisement",
    }
}

/// An advertisement, which makes MetalLB announce the addresses of pools: of the named and selected ones, or of all.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// The index of its cluster.
    pub cluster: usize,
    /// Its kind.
    pub kind: AdvertisementKind,
    /// Its namespace, if set.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The location of its name.
    pub location: SourceLocation,
    /// Pools by name, with the location of each name.
    pub pools: Vec<(String, SourceLocation)>,
    /// Pools by label.
    pub selectors: Vec<Selector>,
    /// The services that it is for.
    pub services: ServiceScope,
}

/// The services that an advertisement is for (`spec.serviceSelectors`).
#[derive(Clone, Debug)]
pub enum ServiceScope {
    /// All services with an address from one of its pools.
    All,
    /// Only services that match one of these selectors.
    Selected(Vec<Selector>),
    /// A selector could not be read.
    Unknown,
}

impl ServiceScope {
    /// Whether a service with these labels may be in the scope.
    pub fn may_contain(&self, labels: &Labels) -> bool {
        match self {
            Self::All | Self::Unknown => true,
            Self::Selected(selectors) => selectors.iter().any(|one| one.matches(labels)),
        }
    }
}

impl Advertisement {
    /// Whether it is in the same cluster and namespace as this pool.
    pub fn is_in_scope(&self, pool: &Pool) -> bool {
        let same_namespace = match (&self.namespace, &pool.namespace) {
            (Some(mine), Some(its)) => mine == its,
            // An omitted namespace is set by the tool that applies the file.
            (None, _) | (_, None) => true,
        };
        pool.kind == PoolKind::IpAddressPool && self.cluster == pool.cluster && same_namespace
    }

    /// Whether it advertises this pool: by name, by label, or because it advertises all.
    pub fn advertises(&self, pool: &Pool) -> bool {
        let named = || self.pools.iter().any(|(name, _)| *name == pool.name);
        let selected = || {
            let mut selectors = self.selectors.iter();
            selectors.any(|selector| selector.matches(&pool.labels))
        };
        self.is_in_scope(pool) && (self.is_for_all() || named() || selected())
    }

    /// Whether it advertises all pools in its scope.
    pub fn is_for_all(&self) -> bool {
        self.pools.is_empty() && self.selectors.is_empty()
    }
}

/// A label selector: all of its requirements must be met.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Its location.
    pub location: SourceLocation,
    /// Its requirements.
    pub requirements: Vec<Requirement>,
}

/// A requirement on a label.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// The key of the label.
    pub key: String,
    /// The operator.
    pub operator: Operator,
    /// The values to compare with.
    pub values: Vec<String>,
}

/// The operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|one| one.is_met(labels))
    }
}

impl Requirement {
    fn is_met(&self, labels: &Labels) -> bool {
        let label = labels.get(&self.key);
        let is_listed = label.is_some_and(|label| self.values.contains(label));
        match self.operator {
            Operator::In => is_listed,
            Operator::NotIn => !is_listed,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

/// The parts of a manifest that could not be read. The report lists them; their contents are not evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadFile {
    /// The index of the file.
    pub file: usize,
    /// The line and column, if the file could be opened.
    pub mark: Option<YamlMark>,
    /// The error.
    pub error: ManifestError,
}

/// Why a file or a part of it could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Io(String),
    /// The file is not UTF-8 text.
    #[error("not UTF-8: save it as UTF-8 without a byte order mark")]
    NotUtf8,
    /// The file is too large.
    #[error("larger than {limit} MiB: pass only the manifests, or split the file")]
    TooLarge {
        /// The limit in MiB.
        limit: u64,
    },
    /// A document is not valid YAML.
    #[error(transparent)]
    Yaml(#[from] ManifestYamlError),
    /// A field has an unexpected type or value.
    #[error("{field} is not {expected}")]
    UnexpectedValue {
        /// The field.
        field: &'static str,
        /// The expected type or value.
        expected: &'static str,
    },
    /// The plan is empty.
    #[error(
        "the plan is empty, so nothing could violate it: add clusters, nodes, dhcp or reserved"
    )]
    EmptyPlan,
    /// The number of ranges exceeds the limit.
    #[error(
        "more than {MAX_RANGES} ranges, labels and names, or {} MB of them: the rest is ignored",
        MAX_RANGES * TEXT_OF_A_RANGE / 1_000_000
    )]
    LimitExceeded,
}

/// All objects that were read. Files and clusters are referred to by index.
#[derive(Debug, Default)]
pub struct PoolInventory {
    /// The names of the files.
    pub files: Vec<String>,
    /// The names of the clusters.
    pub clusters: Vec<String>,
    /// All pools, in the order of reading.
    pub pools: Vec<Pool>,
    /// All advertisements, in the order of reading.
    pub advertisements: Vec<Advertisement>,
    /// The parts that could not be read.
    pub unread: Vec<UnreadFile>,
    /// The number of parts read: ranges, labels, names and other repeated fields. It is bounded because with aliases a
    /// small file could exhaust the memory.
    parts: usize,
    /// The last file with ignored parts.
    left_out: Option<usize>,
}

impl PoolInventory {
    /// The index of a cluster; a new name adds a cluster.
    pub fn cluster(&mut self, name: &str) -> usize {
        let known = self.clusters.iter().position(|cluster| cluster == name);
        known.unwrap_or_else(|| {
            self.clusters.push(name.to_owned());
            self.clusters.len() - 1
        })
    }

    /// Adds a file, and returns its index.
    pub fn file(&mut self, name: &str) -> usize {
        self.files.push(name.to_owned());
        self.files.len() - 1
    }

    /// Records a part that could not be read, up to the limit.
    pub fn record_unread(
        &mut self,
        file: usize,
        mark: Option<YamlMark>,
        error: impl Into<ManifestError>,
    ) {
        if self.parts >= MAX_RANGES {
            return self.record_left_out(file, mark);
        }
        let error = error.into();
        self.parts += 1;
        self.unread.push(UnreadFile { file, mark, error });
    }

    /// Adds a pool.
    pub fn add_pool(&mut self, pool: Pool) {
        self.pools.push(pool);
    }

    /// Adds an advertisement.
    pub fn add_advertisement(&mut self, advertisement: Advertisement) {
        self.advertisements.push(advertisement);
    }

    /// Reserves capacity for parts of objects before they are copied. Returns false, and records the error, beyond the
    /// limit.
    #[must_use]
    pub fn reserve_parts(&mut self, file: usize, mark: YamlMark, parts: usize) -> bool {
        let total = self.parts.saturating_add(parts);
        if total > MAX_RANGES {
            self.parts = MAX_RANGES;
            self.record_left_out(file, Some(mark));
            return false;
        }
        self.parts = total;
        true
    }

    /// Records, once per file, that the rest of it is ignored.
    fn record_left_out(&mut self, file: usize, mark: Option<YamlMark>) {
        if self.left_out.replace(file) != Some(file) {
            let error = ManifestError::LimitExceeded;
            self.unread.push(UnreadFile { file, mark, error });
        }
    }
}
