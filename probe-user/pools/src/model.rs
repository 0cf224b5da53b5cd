//! What was read: clusters, their pools, and who advertises them.

use std::collections::HashMap;

use probe_common::label_enum;

use super::{
    interval::{self, Interval, IntervalError, RangeNotation},
    yaml::{ManifestYamlError, YamlMark},
};

/// More ranges than this are not read: it takes a file made for it to have them.
const MAX_RANGES: usize = 1_000_000;
/// So many bytes of text count as much as a range: few ranges can have long texts.
const TEXT_OF_A_RANGE: usize = 16;

/// How much the bytes of a text count.
pub const fn parts_of(text: &str) -> usize {
    text.len() / TEXT_OF_A_RANGE
}

/// A place in a file. Ordered as files were read, and from top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceLocation {
    /// The number of the file.
    pub file: usize,
    /// Where in it.
    pub mark: YamlMark,
}

label_enum! {
    /// What a pool is defined by.
    pub enum PoolKind {
        /// MetalLB's resource.
        IpAddressPool = "IPAddressPool",
        /// MetalLB's resource before that.
        AddressPool = "AddressPool",
        /// MetalLB's configuration before there were resources.
        MetallbConfigMap = "metallb ConfigMap",
        /// Cilium's resource.
        Cilium = "CiliumLoadBalancerIPPool",
        /// An entry of the ConfigMap of kube-vip's cloud provider.
        KubeVip = "kube-vip ConfigMap",
    }
}

impl PoolKind {
    /// Whether MetalLB hands out its addresses.
    pub const fn is_metallb(self) -> bool {
        match self {
            Self::IpAddressPool | Self::AddressPool | Self::MetallbConfigMap => true,
            Self::Cilium | Self::KubeVip => false,
        }
    }

    /// Whether the pool is an object of its own, and not an entry of a `ConfigMap`.
    pub const fn is_resource(self) -> bool {
        match self {
            Self::IpAddressPool | Self::AddressPool | Self::Cilium => true,
            Self::MetallbConfigMap | Self::KubeVip => false,
        }
    }
}

/// A range as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenRange {
    /// Its addresses.
    pub interval: Interval,
    /// How it was written.
    pub form: RangeNotation,
    /// Word for word.
    pub text: String,
    /// Where.
    pub place: SourceLocation,
}

impl WrittenRange {
    /// Reads what is written in a place.
    pub fn parse(text: &str, place: SourceLocation) -> Result<Self, InvalidRangeEntry> {
        match Interval::parse(text) {
            Ok((interval, form)) => Ok(Self {
                interval,
                form,
                text: text.to_owned(),
                place,
            }),
            Err(error) => Err(InvalidRangeEntry {
                text: text.chars().take(interval::MAX_TEXT_BYTES).collect(),
                place,
                error,
            }),
        }
    }
}

/// What should be a range and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRangeEntry {
    /// Word for word, as far as a range could be as long.
    pub text: String,
    /// Where.
    pub place: SourceLocation,
    /// What is wrong.
    pub error: IntervalError,
}

/// Key and value pairs of an object.
pub type Labels = HashMap<String, String>;

/// A pool of addresses.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The number of its cluster.
    pub cluster: usize,
    /// What defines it.
    pub kind: PoolKind,
    /// Where it lives, if it says so.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What selectors look at.
    pub labels: Labels,
    /// Where its name stands.
    pub place: SourceLocation,
    /// What is in it.
    pub ranges: Vec<WrittenRange>,
    /// What should be in it and is no range.
    pub faults: Vec<InvalidRangeEntry>,
    /// Whether services get its addresses without asking for them.
    pub auto_assign: bool,
    /// Whether addresses that end in .0 and .255 are left out.
    pub avoid_buggy_ips: bool,
}

label_enum! {
    /// The kinds of advertisement.
    pub enum AdvertisementKind {
        /// By ARP and neighbour discovery.
        L2 = "L2Advertisement",
        /// By BGP.
        Bgp = "BGPAdvertisement",
    }
}

/// What makes MetalLB announce the addresses of pools: of those named and those selected, or of all.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// The number of its cluster.
    pub cluster: usize,
    /// Which kind.
    pub kind: AdvertisementKind,
    /// Where it lives, if it says so.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub place: SourceLocation,
    /// Pools by name, and where each name stands.
    pub pools: Vec<(String, SourceLocation)>,
    /// Pools by label.
    pub selectors: Vec<Selector>,
    /// The services that it is for.
    pub services: ServiceScope,
}

/// The services that an advertisement is for (`spec.serviceSelectors`).
#[derive(Clone, Debug)]
pub enum ServiceScope {
    /// All whose address is from one of its pools.
    All,
    /// Of those the ones that one of these selects.
    Selected(Vec<Selector>),
    /// A selector could not be read.
    Unknown,
}

impl ServiceScope {
    /// Whether a service with these labels may be in it.
    pub fn may_contain(&self, labels: &Labels) -> bool {
        match self {
            Self::All | Self::Unknown => true,
            Self::Selected(selectors) => selectors.iter().any(|one| one.matches(labels)),
        }
    }
}

impl Advertisement {
    /// Whether it could advertise this pool as far as cluster and namespace go.
    pub fn is_in_scope(&self, pool: &Pool) -> bool {
        let same_namespace = match (&self.namespace, &pool.namespace) {
            (Some(mine), Some(its)) => mine == its,
            // A namespace that is not written comes from the tool that applies the file.
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

    /// Whether it advertises every pool that it sees.
    pub fn is_for_all(&self) -> bool {
        self.pools.is_empty() && self.selectors.is_empty()
    }
}

/// A label selector: all of its requirements have to be met.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Where it stands.
    pub place: SourceLocation,
    /// What it asks for.
    pub requirements: Vec<Requirement>,
}

/// What a label has to be.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// Which label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; a label that is not there is none of them.
    NotIn,
    /// There, with any value.
    Exists,
    /// Not there.
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

/// What could not be read. Whatever it holds is not in the verdict, and the verdict says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadFile {
    /// The number of the file.
    pub file: usize,
    /// Where in it, if it could be opened at all.
    pub mark: Option<YamlMark>,
    /// Why.
    pub error: ManifestError,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Io(String),
    /// The file is no text.
    #[error("not UTF-8: save it as UTF-8 without a byte order mark")]
    NotUtf8,
    /// The file is too large to be manifests.
    #[error("larger than {limit} MiB: give the manifests only, or split it")]
    TooLarge {
        /// In MiB.
        limit: u64,
    },
    /// A document is broken.
    #[error(transparent)]
    Yaml(#[from] ManifestYamlError),
    /// A part of a document is of another shape than its kind asks for.
    #[error("{field} is not {expected}")]
    Shape {
        /// Which part.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A plan in which nothing is planned.
    #[error(
        "the plan is empty, and everything would keep to it: write clusters, nodes, dhcp or reserved"
    )]
    EmptyPlan,
    /// More ranges than are read.
    #[error(
        "more than {MAX_RANGES} ranges, labels and names, or {} MB of them: the rest is left out",
        MAX_RANGES * TEXT_OF_A_RANGE / 1_000_000
    )]
    TooMany,
}

/// Everything that was read. Files and clusters are named by their numbers.
#[derive(Debug, Default)]
pub struct PoolInventory {
    /// The files, as people know them.
    pub files: Vec<String>,
    /// The names of the clusters.
    pub clusters: Vec<String>,
    /// All pools, in the order of reading.
    pub pools: Vec<Pool>,
    /// All advertisements, in the order of reading.
    pub advertisements: Vec<Advertisement>,
    /// What could not be read.
    pub unread: Vec<UnreadFile>,
    /// How much was read: of ranges, labels, names and whatever else objects have any number of. By aliases, a
    /// small file could have more than there is memory.
    parts: usize,
    /// The last file of which something was left out.
    left_out: Option<usize>,
}

impl PoolInventory {
    /// The number of a cluster, which is new if the name is.
    pub fn cluster(&mut self, name: &str) -> usize {
        let known = self.clusters.iter().position(|cluster| cluster == name);
        known.unwrap_or_else(|| {
            self.clusters.push(name.to_owned());
            self.clusters.len() - 1
        })
    }

    /// The number of a file that is read next.
    pub fn file(&mut self, name: &str) -> usize {
        self.files.push(name.to_owned());
        self.files.len() - 1
    }

    /// Notes that something could not be read, as far as there is room.
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

    /// Takes a pool.
    pub fn add_pool(&mut self, pool: Pool) {
        self.pools.push(pool);
    }

    /// Takes an advertisement.
    pub fn add_advertisement(&mut self, advertisement: Advertisement) {
        self.advertisements.push(advertisement);
    }

    /// Takes room for parts of objects, before they are copied, and says whether there was so much. That there was
    /// not is noted.
    #[must_use]
    pub fn reserve_parts(&mut self, file: usize, mark: YamlMark, parts: usize) -> bool {
        let taken = self.parts.saturating_add(parts);
        if taken > MAX_RANGES {
            self.parts = MAX_RANGES;
            self.record_left_out(file, Some(mark));
            return false;
        }
        self.parts = taken;
        true
    }

    /// Notes, once of a file, that there was no room for the rest of it.
    fn record_left_out(&mut self, file: usize, mark: Option<YamlMark>) {
        if self.left_out.replace(file) != Some(file) {
            let error = ManifestError::TooMany;
            self.unread.push(UnreadFile { file, mark, error });
        }
    }
}
