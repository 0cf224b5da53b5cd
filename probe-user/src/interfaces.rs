//! Which interfaces are watched: keeps the programs attached where they are wanted, as interfaces come
//! and go.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;
use tokio::sync::watch;

use crate::{
    kernel::{Attachment, CounterReader, Kernel, KernelError, Mode},
    links::{Link, Links},
};

/// A watched interface, for those who show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its index.
    pub ifindex: u32,
    /// Its name now.
    pub name: String,
    /// How its arriving frames are seen.
    pub mode: Mode,
}

/// All watched interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedInterfaces(Vec<Watched>);

impl WatchedInterfaces {
    /// Whether the interface is watched.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.get(ifindex).is_some()
    }

    /// The watched interface with this index.
    pub fn get(&self, ifindex: u32) -> Option<&Watched> {
        self.0.iter().find(|watched| watched.ifindex == ifindex)
    }

    /// Every watched interface, in the order of its index.
    pub fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.0.iter()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why an interface that was asked for is not watched.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No interface of this name.
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
    /// The programs could not be attached.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Keeps the programs attached.
pub struct Interfaces {
    kernel: Kernel,
    counters: CounterReader,
    names: Vec<String>,
    mode: Mode,
    attached: BTreeMap<u32, Attachment>,
    links: watch::Receiver<Arc<Links>>,
    watched: watch::Sender<Arc<WatchedInterfaces>>,
}

impl Interfaces {
    /// Attaches to every named interface.
    ///
    /// # Errors
    ///
    /// The first interface that cannot be watched. Nothing stays attached then.
    pub fn attach(
        kernel: Kernel,
        names: Vec<String>,
        mode: Mode,
        links: watch::Receiver<Arc<Links>>,
    ) -> Result<Self, InterfaceError> {
        let mut interfaces = Self {
            counters: kernel.counters(),
            kernel,
            names,
            mode,
            attached: BTreeMap::new(),
            links,
            watched: watch::Sender::default(),
        };
        let links = interfaces.links.borrow_and_update().clone();
        for name in interfaces.names.clone() {
            let link = links.named(&name).ok_or_else(|| InterfaceError::Unknown {
                name: name.clone(),
                there: links.iter().map(|link| link.name.clone()).collect(),
            })?;
            if !link.ethernet {
                return Err(InterfaceError::NotEthernet { name });
            }
            interfaces.attach_one(link)?;
        }
        interfaces.publish(&links);
        Ok(interfaces)
    }

    /// The interfaces that are watched, now and whenever that changes.
    pub fn watched(&self) -> watch::Receiver<Arc<WatchedInterfaces>> {
        self.watched.subscribe()
    }

    /// Follows the interfaces of the host until dropped.
    pub async fn follow(mut self) {
        while self.links.changed().await.is_ok() {
            let links = self.links.borrow_and_update().clone();
            // Attaching may take a driver seconds.
            tokio::task::block_in_place(|| self.reconcile(&links));
            self.publish(&links);
        }
    }

    /// Lets go of what is gone, attaches to what has come.
    fn reconcile(&mut self, links: &Links) {
        self.attached.retain(|&index, attachment| {
            let there = links.get(index).is_some();
            if !there {
                tracing::info!(interface = attachment.name, "interface is gone");
                self.counters.forget(index);
            }
            there
        });
        for link in links.iter() {
            let wanted = link.ethernet && self.names.contains(&link.name);
            if wanted
                && !self.attached.contains_key(&link.index)
                && let Err(error) = self.attach_one(link)
            {
                tracing::warn!(interface = link.name, %error, "interface is not watched");
            }
        }
    }

    fn attach_one(&mut self, link: &Link) -> Result<(), KernelError> {
        if self.attached.contains_key(&link.index) {
            return Ok(());
        }
        let attachment = self.kernel.attach(link, self.mode)?;
        tracing::info!(interface = link.name, mode = %attachment.mode, "interface is watched");
        self.attached.insert(link.index, attachment);
        Ok(())
    }

    fn publish(&self, links: &Links) {
        let watched = self.attached.values().map(|attachment| Watched {
            ifindex: attachment.ifindex,
            name: links
                .get(attachment.ifindex)
                .map_or(&attachment.name, |link| &link.name)
                .clone(),
            mode: attachment.mode,
        });
        self.watched
            .send_replace(Arc::new(WatchedInterfaces(watched.collect())));
    }
}
