//! Where findings come from: programs of this process, or the daemon.

use std::{path::Path, sync::Arc};

use anyhow::bail;
use probe_common::event::ArpEvent;
use probe_model::{BindingRecord, ClaimRecord, FindingRecord, Timestamp};
use probe_prober::AskingState;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use crate::{
    cli::{history::Line, session::Session, source::SourceArguments},
    client::{Answer, Client, ClientError},
    daemon::{
        recording::Recording,
        serve::{InterfaceRecord, StatusRecord},
    },
    filter::Filter,
};

/// Something to show.
#[derive(Debug)]
pub enum Item {
    Finding(Arc<FindingRecord>, Option<u64>),
    Claim(Box<ClaimRecord>),
    Missed(u64),
}

/// A source of items.
pub enum Feed {
    Attached(Box<Attached>),
    Daemon(Box<Daemon>),
}

/// By programs of this process.
pub struct Attached {
    /// Until it is stopped.
    session: Option<Session>,
    findings: Receiver<Arc<FindingRecord>>,
    claims: Option<Receiver<ArpEvent>>,
}

/// By the daemon.
pub struct Daemon {
    client: Client,
    query: String,
    findings: Answer,
    claims: Option<Answer>,
}

impl Feed {
    /// Attaches. Nothing is found until [`Feed::begin`].
    pub async fn attach(source: &SourceArguments, claims: bool) -> anyhow::Result<Self> {
        let session = Session::start(source, Err(AskingState::Off)).await?;
        Ok(Self::Attached(Box::new(Attached {
            findings: session.monitor.findings(),
            claims: claims.then(|| session.monitor.events()),
            session: Some(session),
        })))
    }

    /// Asks the daemon, if one answers that watches what is wanted.
    pub async fn daemon(
        socket: &Path,
        filter: &Filter,
        claims: bool,
    ) -> Result<Option<Self>, ClientError> {
        let client = Client::new(socket);
        let query = filter.to_query();
        let watched = match client
            .list::<InterfaceRecord>(&format!("/v1/interfaces{query}"))
            .await
        {
            Err(ClientError::NoDaemon(_)) => return Ok(None),
            other => other?,
        };
        if watched.is_empty() {
            return Ok(None);
        }
        let findings = client.get(&format!("/v1/findings{query}")).await?;
        let claims = if claims {
            Some(client.get(&format!("/v1/claims{query}")).await?)
        } else {
            None
        };
        Ok(Some(Self::Daemon(Box::new(Daemon {
            client,
            query,
            findings,
            claims,
        }))))
    }

    /// Begins to watch, unless the daemon does that.
    pub fn begin(&mut self) {
        if let Self::Attached(attached) = self
            && let Some(session) = &mut attached.session
        {
            session.begin();
        }
    }

    /// The conflicts that were open before this began.
    pub async fn open_conflicts(&self) -> Result<Vec<BindingRecord>, ClientError> {
        match self {
            Self::Attached(_) => Ok(Vec::new()),
            Self::Daemon(daemon) => {
                let target = format!("/v1/conflicts{}", daemon.query);
                daemon.client.list(&target).await
            }
        }
    }

    /// How the watching goes.
    pub async fn status(&self) -> anyhow::Result<StatusRecord> {
        match self {
            Self::Attached(attached) => {
                let Some(session) = &attached.session else {
                    bail!("it has ended");
                };
                let snapshot = session.monitor.snapshot().await?;
                let watched = session.watched.borrow().clone();
                Ok(StatusRecord::new(&watched, &snapshot))
            }
            Self::Daemon(daemon) => match daemon.client.get("/v1/status").await?.record().await? {
                Some(status) => Ok(status),
                None => bail!("the daemon says nothing of itself"),
            },
        }
    }

    /// What can be recorded while this lasts, if it is not the daemon's to do.
    pub fn recording(&self, filter: &Filter) -> Option<Recording> {
        let Self::Attached(attached) = self else {
            return None;
        };
        let session = attached.session.as_ref()?;
        let (links, watched) = (session.links.clone(), session.watched.clone());
        let filter = filter.clone();
        Some(Recording::new(
            &session.monitor,
            links,
            watched,
            filter,
            Vec::new(),
        ))
    }

    /// The next item; `None` at the end. Can be dropped at any time without losing one.
    pub async fn next(&mut self) -> anyhow::Result<Option<Item>> {
        match self {
            Self::Attached(attached) => Ok(attached.next().await),
            Self::Daemon(daemon) => daemon.next().await,
        }
    }

    /// Stops watching. What was found until then is still to be had, by [`Feed::rest`].
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Attached(attached) => match attached.session.take() {
                Some(session) => session.end().await,
                None => Ok(()),
            },
            Self::Daemon(_) => Ok(()),
        }
    }

    /// What came until it was stopped and has not been read.
    pub fn rest(&mut self) -> Vec<Item> {
        let Self::Attached(attached) = self else {
            return Vec::new();
        };
        let mut items = Vec::new();
        loop {
            match attached.findings.try_recv() {
                Ok(record) => items.push(Item::Finding(record, None)),
                Err(TryRecvError::Lagged(missed)) => items.push(Item::Missed(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return items,
            }
        }
    }
}

impl Attached {
    async fn next(&mut self) -> Option<Item> {
        loop {
            let (claims, session) = (&mut self.claims, &self.session);
            let claim = async {
                match claims {
                    Some(claims) => claims.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                finding = self.findings.recv() => return match finding {
                    Ok(record) => Some(Item::Finding(record, None)),
                    Err(RecvError::Lagged(missed)) => Some(Item::Missed(missed)),
                    Err(RecvError::Closed) => None,
                },
                event = claim => match event {
                    Ok(event) => {
                        let name = session.as_ref()?.watched.borrow().name_of(event.ifindex);
                        let time = probe_datapath::clock::MONOTONIC.wall(Timestamp(event.ktime_ns));
                        if let Some(claim) = ClaimRecord::new(&event, name, time) {
                            return Some(Item::Claim(Box::new(claim)));
                        }
                    }
                    Err(RecvError::Lagged(missed)) => return Some(Item::Missed(missed)),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl Daemon {
    async fn next(&mut self) -> anyhow::Result<Option<Item>> {
        let claims = &mut self.claims;
        let claim = async {
            match claims {
                Some(claims) => claims.record::<ClaimLine>().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            line = self.findings.record::<Line>() => line?.map(|line| match line {
                Line::Missed(missed) => Item::Missed(missed.missed),
                Line::Finding(finding) => {
                    Item::Finding(Arc::new(finding.record), Some(finding.sequence))
                }
            }),
            line = claim => line?.map(|line| match line {
                ClaimLine::Missed(missed) => Item::Missed(missed.missed),
                ClaimLine::Claim(claim) => Item::Claim(claim),
            }),
        })
    }

    /// Its client, and the query that it was asked with.
    pub fn client(&self) -> (&Client, &str) {
        (&self.client, &self.query)
    }
}

/// A line of the daemon's.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum ClaimLine {
    Missed(crate::daemon::serve::MissedRecord),
    Claim(Box<ClaimRecord>),
}
