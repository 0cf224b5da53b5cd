//! Which interfaces are watched, and how: keeps the programs attached where they are wanted, as interfaces
//! come and go and others interfere.

mod offload;
mod plan;
mod selection;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use probe_model::{
    Backoff, Link, Links,
    watched::{AttachPlan, WatchState, WatchedInterface, WatchedInterfaces},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use self::offload::Offloads;
pub use self::{
    plan::{AttachMode, LinkEnvironment, plan_attach},
    selection::{InterfaceSelection, NamePattern, NamePatternError},
};
use crate::{
    Attachment, AttachmentStatus, ClsactFilters, CounterReader, DescriptorReserve,
    DisplacedProgram, Kernel, KernelError, preflight,
};

/// How often attachments are looked after.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait before an interface that could not be attached to, or that somebody took away, is tried
/// again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest of these waits.
const MAX_RETRY: Duration = Duration::from_mins(1);
/// Orders that may wait.
const COMMAND_QUEUE: usize = 16;

/// Why interfaces that were asked for are not watched.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No interface has one of the names.
    #[error("no interface is called {name}; there are: {}", there.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// Frames on it have no Ethernet header, so there is no ARP.
    #[error("{name} is no Ethernet interface: there is no ARP on it")]
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// None is worth watching.
    #[error("no interface is worth watching by default: name one with -i (there are: {})", there.join(", "))]
    None {
        /// What there is.
        there: Vec<String>,
    },
    /// No descriptors could be reserved.
    #[error(
        "cannot reserve file descriptors for detection: {0} (raise the limit: ulimit -n, LimitNOFILE=)"
    )]
    Descriptors(#[source] io::Error),
    /// The programs could not be attached.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What others may want done.
#[derive(Debug)]
enum InterfaceCommand {
    ReleaseXdp,
    WatchOnly(Vec<Ipv4Net>, oneshot::Sender<Result<(), KernelError>>),
}

/// Gives orders to [`InterfaceManager`].
#[derive(Clone, Debug)]
pub struct InterfacesHandle(mpsc::Sender<InterfaceCommand>);

impl InterfacesHandle {
    /// Releases the XDP slot of every interface for somebody else, and goes on by TC. Stays so until the
    /// program is started again.
    pub async fn release_xdp(&self) {
        // Closed only while everything ends: then it is released as well.
        let _ = self.0.send(InterfaceCommand::ReleaseXdp).await;
    }

    /// Watches only the addresses of these networks from now on, or all if there are none.
    pub async fn watch_only(&self, networks: Vec<Ipv4Net>) -> Result<(), WatchOnlyError> {
        let (sender, receiver) = oneshot::channel();
        let sent = self
            .0
            .send(InterfaceCommand::WatchOnly(networks, sender))
            .await;
        sent.map_err(|_| WatchOnlyError::ShuttingDown)?;
        Ok(receiver.await.map_err(|_| WatchOnlyError::ShuttingDown)??)
    }
}

/// Why the watch filter was not changed.
#[derive(Debug, Error)]
pub enum WatchOnlyError {
    /// The kernel side refused it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The program is about to end.
    #[error("the program is ending")]
    ShuttingDown,
}

/// Changes of interfaces are not known any more.
#[derive(Clone, Copy, Debug, Error)]
#[error("changes of interfaces are not known any more: the netlink connection ended")]
pub struct FollowError;

/// What to watch and how.
#[derive(Clone, Debug, Default)]
pub struct WatchPolicy {
    /// Which interfaces.
    pub selection: InterfaceSelection,
    /// In which way.
    pub attach: AttachMode,
}

/// An interface that waits for its next try.
struct AttachFailure {
    reason: String,
    retry_at: Instant,
    delay: Duration,
    backoff: Backoff,
}

/// Keeps the programs attached.
pub struct InterfaceManager {
    kernel: Kernel,
    counters: CounterReader,
    policy: WatchPolicy,
    attached: BTreeMap<u32, AttachedInterface>,
    failed: BTreeMap<u32, AttachFailure>,
    native_refused: HashSet<u32>,
    released: bool,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Sender<Arc<WatchedInterfaces>>,
    interface_commands: mpsc::Receiver<InterfaceCommand>,
    descriptors: DescriptorReserve,
}

struct AttachedInterface {
    attachment: Attachment,
    plan: AttachPlan,
    vlan_visible: bool,
    /// Whether the last check of it failed, so that a lasting error is logged once.
    unchecked: bool,
}

impl InterfaceManager {
    /// Attaches to every selected interface.
    ///
    /// # Errors
    ///
    /// The first interface that was asked for and cannot be watched. Nothing stays attached then.
    pub async fn attach(
        kernel: Kernel,
        policy: WatchPolicy,
        links: watch::Receiver<Arc<Links>>,
    ) -> Result<(Self, InterfacesHandle), InterfaceError> {
        let (sender, interface_commands) = mpsc::channel(COMMAND_QUEUE);
        let descriptors = DescriptorReserve::new().map_err(InterfaceError::Descriptors)?;
        let mut interfaces = Self {
            counters: kernel.counters(),
            kernel,
            policy,
            attached: BTreeMap::new(),
            failed: BTreeMap::new(),
            native_refused: HashSet::new(),
            released: false,
            links,
            watched: watch::Sender::default(),
            interface_commands,
            descriptors,
        };
        let links = interfaces.links.borrow_and_update().clone();
        interfaces.check_selection(&links)?;
        for link in interfaces.policy.selection.select(&links) {
            interfaces.attach_one(link, &links).await?;
        }
        interfaces.publish(&links);
        Ok((interfaces, InterfacesHandle(sender)))
    }

    fn check_selection(&self, links: &Links) -> Result<(), InterfaceError> {
        let selection = &self.policy.selection;
        let there = || links.iter().map(|link| link.name.clone()).collect();
        if let Some(&name) = selection.missing_names(links).first() {
            return Err(InterfaceError::Unknown {
                name: name.to_owned(),
                there: there(),
            });
        }
        let named = selection.include.iter().filter_map(NamePattern::as_name);
        if let Some(link) = named
            .filter_map(|name| links.named(name))
            .find(|link| !link.ethernet)
        {
            return Err(InterfaceError::NotEthernet {
                name: link.name.clone(),
            });
        }
        if selection.include.is_empty() && selection.select(links).is_empty() {
            return Err(InterfaceError::None { there: there() });
        }
        Ok(())
    }

    /// The interfaces that should be watched, now and whenever that changes.
    pub fn watched(&self) -> watch::Receiver<Arc<WatchedInterfaces>> {
        self.watched.subscribe()
    }

    /// Follows the interfaces of the host until dropped, or until their changes are not known any more.
    ///
    /// # Errors
    ///
    /// [`FollowError`], when the source of the interfaces has ended.
    pub async fn follow(mut self) -> Result<(), FollowError> {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                changed = self.links.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Err(FollowError),
                },
                _ = checks.tick() => true,
                Some(order) = self.interface_commands.recv() => {
                    self.apply_command(order);
                    false
                }
            };
            self.descriptors.release();
            if due {
                self.check_attachments().await;
            }
            let links = self.links.borrow_and_update().clone();
            self.reconcile(&links).await;
            if let Err(error) = self.descriptors.fill() {
                tracing::debug!(%error, "not all descriptors could be reserved again");
            }
            self.publish(&links);
        }
    }

    fn apply_command(&mut self, order: InterfaceCommand) {
        match order {
            InterfaceCommand::ReleaseXdp => {
                tracing::info!("releasing the XDP slot; going on by TC");
                self.released = true;
            }
            InterfaceCommand::WatchOnly(networks, reply) => {
                // Whoever asked may have gone meanwhile.
                let _ = reply.send(self.kernel.watch_only(&networks));
            }
        }
    }

    /// Notices what others have detached, and puts TC programs back in front. What cannot be checked stays attached.
    async fn check_attachments(&mut self) {
        let mut lost = Vec::new();
        for (&index, attached) in &mut self.attached {
            let filters = if attached.attachment.has_filters() {
                ClsactFilters::read(index).await
            } else {
                Ok(ClsactFilters::default())
            };
            match self
                .kernel
                .attachment_status(&attached.attachment, &filters)
            {
                AttachmentStatus::InPlace => attached.unchecked = false,
                AttachmentStatus::Displaced(reason) => lost.push((index, reason)),
                AttachmentStatus::Unknown(error) => {
                    if !attached.unchecked {
                        let interface = &attached.attachment.name;
                        tracing::warn!(
                            interface,
                            %error,
                            "cannot check whether the programs are still attached; they stay as they are"
                        );
                    }
                    attached.unchecked = true;
                }
            }
        }
        for (index, reason) in lost {
            let previous = self.failed.get(&index);
            let is_behind = reason == DisplacedProgram::Behind;
            // Behind another program frames may still be seen: what is there stays until the next try.
            if is_behind && previous.is_some_and(AttachFailure::is_recent) {
                continue;
            }
            let failure = AttachFailure::displaced(previous, reason.to_string(), is_behind);
            if let Some(attached) = self.attached.remove(&index) {
                tracing::warn!(
                    interface = attached.attachment.name,
                    %reason,
                    retry_in = ?failure.retry_at.saturating_duration_since(Instant::now()),
                    "reattaching"
                );
                self.failed.insert(index, failure);
            }
        }
        // What has held for longer than any wait is forgiven.
        let now = Instant::now();
        let attached = &self.attached;
        self.failed.retain(|index, failure| {
            !attached.contains_key(index) || now < failure.retry_at + 2 * MAX_RETRY
        });
    }

    /// Lets go of what is gone or is to be watched in another way, attaches to what has come.
    async fn reconcile(&mut self, links: &Links) {
        let selected: Vec<Link> = self
            .policy
            .selection
            .select(links)
            .into_iter()
            .cloned()
            .collect();
        let is_selected = |index: u32| selected.iter().any(|link| link.index == index);

        self.attached.retain(|&index, attached| {
            let keep = is_selected(index);
            if !keep {
                tracing::info!(interface = attached.attachment.name, "no longer watched");
            }
            keep
        });
        for gone in self
            .watched
            .borrow()
            .iter()
            .filter(|watched| !is_selected(watched.ifindex))
        {
            self.counters.retire(gone.ifindex, &gone.name);
        }
        self.failed.retain(|&index, _| is_selected(index));
        self.native_refused.retain(|&index| is_selected(index));

        for link in &selected {
            if self
                .failed
                .get(&link.index)
                .is_some_and(|failure| Instant::now() < failure.retry_at)
            {
                continue;
            }
            if let Err(error) = self.attach_one(link, links).await {
                let failure = AttachFailure::after(self.failed.get(&link.index), error.to_string());
                let retry_in = failure.delay;
                tracing::warn!(interface = link.name, %error, ?retry_in, "interface is not watched");
                self.failed.insert(link.index, failure);
            }
        }
    }

    /// Attaches to an interface in the way that is planned for it now; does nothing where that is so
    /// already.
    async fn attach_one(&mut self, link: &Link, links: &Links) -> Result<(), KernelError> {
        let circumstances = LinkEnvironment {
            xdp_in_use: link
                .xdp_program
                .is_some_and(|id| !self.kernel.owns_xdp_program(id)),
            native_refused: self.native_refused.contains(&link.index),
            released: self.released,
            ..link_environment(link, links).await
        };
        let is_attached = self.attached.contains_key(&link.index);
        if is_attached && !circumstances.offloads_known && !self.released {
            // What is attached is not touched because a question went unanswered.
            return Ok(());
        }
        let plan = plan_attach(self.policy.attach, &circumstances);
        let vlan_visible = circumstances.shows_vlan_tags(plan.mode);
        if let Some(current) = self.attached.get_mut(&link.index)
            && current.plan.mode == plan.mode
        {
            // Offloads may be switched at any time, and the reason may be another by now.
            if current.vlan_visible && !vlan_visible {
                warn_of_invisible_vlans(link);
            }
            current.plan = plan;
            current.vlan_visible = vlan_visible;
            return Ok(());
        }
        // The old programs go first: a slot that we hold ourselves is taken.
        self.attached.remove(&link.index);
        // Attaching may take a driver seconds.
        let attached = tokio::task::block_in_place(|| self.kernel.attach(link, plan.mode));
        let attachment = match attached {
            Ok(attachment) => attachment,
            Err(KernelError::Busy { .. } | KernelError::Unsupported { .. })
                if self.policy.attach == AttachMode::Auto && plan.mode.is_xdp() =>
            {
                self.native_refused.insert(link.index);
                return Box::pin(self.attach_one(link, links)).await;
            }
            Err(error) => return Err(error),
        };
        tracing::info!(
            interface = link.name,
            mode = %plan.mode,
            reason = %plan.reason,
            "interface is watched"
        );
        if !vlan_visible {
            warn_of_invisible_vlans(link);
        }
        self.attached.insert(
            link.index,
            AttachedInterface {
                attachment,
                plan,
                vlan_visible,
                unchecked: false,
            },
        );
        Ok(())
    }

    fn publish(&self, links: &Links) {
        let attached = self
            .attached
            .iter()
            .map(|(&ifindex, attached)| WatchedInterface {
                ifindex,
                name: attached.attachment.name.clone(),
                state: WatchState::Attached {
                    plan: attached.plan,
                    vlan_visible: attached.vlan_visible,
                },
            });
        let failed = self
            .failed
            .iter()
            .filter(|(index, _)| !self.attached.contains_key(index));
        let failed = failed.map(|(&ifindex, failure)| WatchedInterface {
            ifindex,
            name: String::new(),
            state: WatchState::Failed {
                reason: failure.reason.clone(),
            },
        });
        let mut watched: Vec<_> = attached.chain(failed).collect();
        for watched in &mut watched {
            if let Some(link) = links.get(watched.ifindex) {
                watched.name.clone_from(&link.name);
            }
        }
        watched.sort_by_key(|watched| watched.ifindex);
        let watched: WatchedInterfaces = watched.into_iter().collect();
        self.watched.send_if_modified(|current| {
            let modified = **current != watched;
            if modified {
                *current = Arc::new(watched);
            }
            modified
        });
    }
}

impl AttachFailure {
    /// The failure that follows another, with twice its delay.
    fn after(previous: Option<&Self>, reason: String) -> Self {
        let mut backoff = previous.map_or(Backoff::new(FIRST_RETRY, MAX_RETRY), |previous| {
            previous.backoff
        });
        // One host has few interfaces: nothing is spread by jitter.
        let delay = backoff.next_delay(0.0);
        Self {
            reason,
            retry_at: Instant::now() + delay,
            delay,
            backoff,
        }
    }

    /// What was attached was detached or hidden by somebody. The first time, and wherever it is `at_once`, it
    /// goes back now; whoever does it again and again meets longer and longer waits instead of a quarrel.
    fn displaced(previous: Option<&Self>, reason: String, at_once: bool) -> Self {
        let failure = Self::after(previous, reason);
        if at_once || previous.is_none() {
            Self {
                retry_at: Instant::now(),
                ..failure
            }
        } else {
            failure
        }
    }

    /// Whether the wait that goes with it has not passed since the last try.
    fn is_recent(&self) -> bool {
        Instant::now() < self.retry_at + self.delay
    }
}

/// What the plan for an interface goes by, as far as it can be read: whose an XDP program is, whether the
/// driver refused, and what an operator wished is for the caller to say.
pub async fn link_environment(link: &Link, links: &Links) -> LinkEnvironment {
    let read = offload::read(&link.name).await;
    let offloads = read.unwrap_or(Offloads::WORST);
    let driver = offload::driver(&link.name);
    let driver_known = driver.is_ok();
    LinkEnvironment {
        kind: link.kind.clone(),
        driver: driver.unwrap_or_default(),
        mtu: link.mtu,
        offloads_known: read.is_some() && driver_known,
        strips_vlan_tags: offloads.strips_vlan_tags,
        filters_vlans: offloads.filters_vlans && !link.promiscuous,
        has_vlans: links
            .iter()
            .any(|child| child.parent == Some(link.index) && child.vlan.is_some()),
        xdp_in_use: link.xdp_program.is_some(),
        multi_buffer: preflight::kernel_at_least(5, 18),
        native_refused: false,
        released: false,
    }
}

fn warn_of_invisible_vlans(link: &Link) {
    tracing::warn!(
        interface = link.name,
        "the network card strips VLAN tags before XDP sees a frame: VLANs are taken for one segment; \
         use --attach tc"
    );
}
