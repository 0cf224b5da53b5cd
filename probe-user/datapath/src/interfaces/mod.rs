//! Keeps the programs attached to the selected interfaces while interfaces appear and disappear, and while other
//! processes detach or displace the programs.

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

/// The interval of attachment checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The first delay before a failed or displaced attachment is retried; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The maximum of these delays.
const MAX_RETRY: Duration = Duration::from_mins(1);
/// The capacity of the command queue.
const COMMAND_QUEUE: usize = 16;

/// Why the requested interfaces cannot be watched.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No interface has the requested name.
    #[error("no interface is named {name} (available: {})", available.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
        /// The names of all interfaces.
        available: Vec<String>,
    },
    /// The interface has no Ethernet frames, so there is no ARP.
    #[error("{name} is not an Ethernet interface: there is no ARP on it")]
    NotEthernet {
        /// The name of the interface.
        name: String,
    },
    /// No interface matches the defaults.
    #[error("no interface matches the defaults: select one with -i (available: {})", available.join(", "))]
    None {
        /// The names of all interfaces.
        available: Vec<String>,
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

/// A command from another task.
#[derive(Debug)]
enum InterfaceCommand {
    ReleaseXdp,
    SetWatchFilter(Vec<Ipv4Net>, oneshot::Sender<Result<(), KernelError>>),
}

/// Sends commands to [`InterfaceManager`].
#[derive(Clone, Debug)]
pub struct InterfacesHandle(mpsc::Sender<InterfaceCommand>);

impl InterfacesHandle {
    /// Releases the XDP hook of every interface for other programs and continues with TC, until the process is restarted.
    pub async fn release_xdp(&self) {
        // The channel is only closed during shutdown, which detaches all programs.
        let _ = self.0.send(InterfaceCommand::ReleaseXdp).await;
    }

    /// Replaces the watch filter: only addresses of `networks` are watched, or all if there are none.
    pub async fn set_watch_filter(&self, networks: Vec<Ipv4Net>) -> Result<(), WatchFilterError> {
        let (sender, receiver) = oneshot::channel();
        let sent = self
            .0
            .send(InterfaceCommand::SetWatchFilter(networks, sender))
            .await;
        sent.map_err(|_| WatchFilterError::ShuttingDown)?;
        Ok(receiver
            .await
            .map_err(|_| WatchFilterError::ShuttingDown)??)
    }
}

/// Why the watch filter was not changed.
#[derive(Debug, Error)]
pub enum WatchFilterError {
    /// The kernel rejected it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The process is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// The netlink connection that reports changes of interfaces ended.
#[derive(Clone, Copy, Debug, Error)]
#[error("cannot watch the interfaces any longer: the netlink connection ended")]
pub struct LinkWatchError;

/// The interfaces to watch and the mode of attachment.
#[derive(Clone, Debug, Default)]
pub struct WatchPolicy {
    /// The interfaces to watch.
    pub selection: InterfaceSelection,
    /// The requested mode of attachment.
    pub attach: AttachMode,
}

/// A failed or displaced attachment that will be retried.
struct AttachFailure {
    reason: String,
    retry_at: Instant,
    delay: Duration,
    backoff: Backoff,
}

/// Keeps the programs attached to the selected interfaces.
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
    /// Whether the last check failed: a persistent error is logged once.
    check_failed: bool,
}

impl InterfaceManager {
    /// Attaches the programs to all selected interfaces.
    ///
    /// # Errors
    ///
    /// An error for the first requested interface that cannot be watched. Nothing stays attached then.
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
        let available = || links.iter().map(|link| link.name.clone()).collect();
        if let Some(&name) = selection.missing_names(links).first() {
            return Err(InterfaceError::Unknown {
                name: name.to_owned(),
                available: available(),
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
            return Err(InterfaceError::None {
                available: available(),
            });
        }
        Ok(())
    }

    /// Subscribes to the selected interfaces and the state of their attachment.
    pub fn watched(&self) -> watch::Receiver<Arc<WatchedInterfaces>> {
        self.watched.subscribe()
    }

    /// Reconciles the attachments with the interfaces of the host until dropped, or until their changes are unknown.
    ///
    /// # Errors
    ///
    /// [`LinkWatchError`] when the sender of `links` is dropped.
    pub async fn run(mut self) -> Result<(), LinkWatchError> {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                changed = self.links.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Err(LinkWatchError),
                },
                _ = checks.tick() => true,
                Some(command) = self.interface_commands.recv() => {
                    self.apply_command(command);
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
                tracing::debug!(%error, "cannot reserve all file descriptors again");
            }
            self.publish(&links);
        }
    }

    fn apply_command(&mut self, command: InterfaceCommand) {
        match command {
            InterfaceCommand::ReleaseXdp => {
                tracing::info!("releasing the XDP hook; continuing with TC");
                self.released = true;
            }
            InterfaceCommand::SetWatchFilter(networks, reply) => {
                // The requester may have been dropped in the meantime.
                let _ = reply.send(self.kernel.set_watch_filter(&networks));
            }
        }
    }

    /// Checks all attachments, and schedules displaced programs to be attached again. After a failed check, programs stay
    /// attached.
    async fn check_attachments(&mut self) {
        let mut displaced = Vec::new();
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
                AttachmentStatus::InPlace => attached.check_failed = false,
                AttachmentStatus::Displaced(reason) => displaced.push((index, reason)),
                AttachmentStatus::Unknown(error) => {
                    if !attached.check_failed {
                        let interface = &attached.attachment.name;
                        tracing::warn!(
                            interface,
                            %error,
                            "cannot check whether the programs are still attached; not changing them"
                        );
                    }
                    attached.check_failed = true;
                }
            }
        }
        for (index, reason) in displaced {
            let previous = self.failed.get(&index);
            let is_behind = reason == DisplacedProgram::Behind;
            // Behind another program frames may still be observed, so the program stays until the next retry.
            if is_behind && previous.is_some_and(AttachFailure::is_recent) {
                continue;
            }
            let failure = AttachFailure::displaced(previous, reason.to_string(), is_behind);
            if let Some(attached) = self.attached.remove(&index) {
                tracing::warn!(
                    interface = attached.attachment.name,
                    %reason,
                    retry_in = ?failure.retry_at.saturating_duration_since(Instant::now()),
                    "attaching the programs again"
                );
                self.failed.insert(index, failure);
            }
        }
        // Failures are forgotten once the attachment has lasted longer than the maximum delay.
        let now = Instant::now();
        let attached = &self.attached;
        self.failed.retain(|index, failure| {
            !attached.contains_key(index) || now < failure.retry_at + 2 * MAX_RETRY
        });
    }

    /// Detaches from interfaces that were removed or are no longer selected, and attaches to the others.
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
                tracing::info!(
                    interface = attached.attachment.name,
                    "interface is no longer watched"
                );
            }
            keep
        });
        for removed in self
            .watched
            .borrow()
            .iter()
            .filter(|watched| !is_selected(watched.ifindex))
        {
            self.counters.retire(removed.ifindex, &removed.name);
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

    /// Attaches to an interface in the mode that is planned for its current state, unless it is attached in that mode.
    async fn attach_one(&mut self, link: &Link, links: &Links) -> Result<(), KernelError> {
        let environment = LinkEnvironment {
            xdp_in_use: link
                .xdp_program
                .is_some_and(|id| !self.kernel.owns_xdp_program(id)),
            native_refused: self.native_refused.contains(&link.index),
            released: self.released,
            ..link_environment(link, links).await
        };
        let is_attached = self.attached.contains_key(&link.index);
        if is_attached && !environment.offloads_known && !self.released {
            // Unknown offloads are no reason to change an attachment.
            return Ok(());
        }
        let plan = plan_attach(self.policy.attach, &environment);
        let vlan_visible = environment.shows_vlan_tags(plan.mode);
        if let Some(current) = self.attached.get_mut(&link.index)
            && current.plan.mode == plan.mode
        {
            // Offloads may change at any time, and with them the reason.
            if current.vlan_visible && !vlan_visible {
                warn_of_invisible_vlans(link);
            }
            current.plan = plan;
            current.vlan_visible = vlan_visible;
            return Ok(());
        }
        // Detach first: the hook may be occupied by our own program.
        self.attached.remove(&link.index);
        // Some drivers take seconds to attach a program.
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
                check_failed: false,
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
    /// A failure after a previous one, with twice its delay.
    fn after(previous: Option<&Self>, reason: String) -> Self {
        let mut backoff = previous.map_or(Backoff::new(FIRST_RETRY, MAX_RETRY), |previous| {
            previous.backoff
        });
        // A host has few interfaces, so jitter is not necessary.
        let delay = backoff.next_delay(0.0);
        Self {
            reason,
            retry_at: Instant::now() + delay,
            delay,
            backoff,
        }
    }

    /// A displaced program. It is attached again at once the first time, and always if `at_once`. If other processes
    /// displace it repeatedly, the delay grows.
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

    /// Whether the delay since the last retry has not passed.
    fn is_recent(&self) -> bool {
        Instant::now() < self.retry_at + self.delay
    }
}

/// Reads the inputs of [`plan_attach`] for an interface. The caller sets those that cannot be read: whether an XDP program
/// is ours, whether the driver refused native XDP, and whether the operator released the XDP hook.
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
        "the network card strips VLAN tags before XDP runs, so that all VLANs appear as one segment; \
         use --attach tc"
    );
}
