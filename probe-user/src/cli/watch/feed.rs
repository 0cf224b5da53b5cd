//! The sources of findings: BPF programs of this process, or the daemon.

use std::{path::Path, sync::Arc};

use anyhow::{bail, ensure};
use probe_common::event::ArpEvent;
use probe_model::{BindingRecord, ClaimRecord, FindingRecord, Timestamp};
use probe_prober::ProberState;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use crate::{
    cli::{history::HistoryLine, session::Session, source::SourceArguments},
    client::{Client, ClientError, ResponseStream},
    daemon::{
        recording::Recording,
        serve::{InterfaceRecord, StatusRecord},
    },
    filter::RecordFilter,
};

/// An item to show.
#[derive(Debug)]
pub enum FeedItem {
    Finding(Arc<FindingRecord>, Option<u64>),
    Claim(Box<ClaimRecord>),
    Missed(u64),
}

/// A source of items.
pub enum Feed {
    Attached(Box<AttachedFeed>),
    Daemon(Box<DaemonFeed>),
}

/// The BPF programs of this process.
pub struct AttachedFeed {
    /// The session until it is stopped.
    session: Option<Session>,
    findings: Receiver<Arc<FindingRecord>>,
    claims: Option<Receiver<ArpEvent>>,
}

/// The daemon.
pub struct DaemonFeed {
    client: Client,
    query: String,
    findings: ResponseStream,
    claims: Option<ResponseStream>,
}

impl Feed {
    /// Attaches the programs. There are no findings until [`Feed::start_monitor`].
    pub async fn attach(source: &SourceArguments, claims: bool) -> anyhow::Result<Self> {
        let session = Session::start(source, Err(ProberState::Off)).await?;
        Ok(Self::Attached(Box::new(AttachedFeed {
            findings: session.monitor.findings(),
            claims: claims.then(|| session.monitor.events()),
            session: Some(session),
        })))
    }

    /// Subscribes to the daemon, if there is one that watches the requested interfaces.
    pub async fn daemon(
        socket: &Path,
        filter: &RecordFilter,
        claims: bool,
    ) -> Result<Option<Self>, ClientError> {
        let client = Client::new(socket);
        let query = filter.to_query();
        let watched = match client
            .list::<InterfaceRecord>(&format!("/v1/interfaces{query}"))
            .await
        {
            Err(ClientError::NotRunning(_)) => return Ok(None),
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
        Ok(Some(Self::Daemon(Box::new(DaemonFeed {
            client,
            query,
            findings,
            claims,
        }))))
    }

    /// Starts detection, unless the daemon does.
    pub fn start_monitor(&mut self) {
        if let Self::Attached(attached) = self
            && let Some(session) = &mut attached.session
        {
            session.start_monitor();
        }
    }

    /// The conflicts that were open before the feed started.
    pub async fn open_conflicts(&self) -> Result<Vec<BindingRecord>, ClientError> {
        match self {
            Self::Attached(_) => Ok(Vec::new()),
            Self::Daemon(daemon) => {
                let target = format!("/v1/conflicts{}", daemon.query);
                daemon.client.list(&target).await
            }
        }
    }

    /// The status of the monitor.
    pub async fn status(&self) -> anyhow::Result<StatusRecord> {
        match self {
            Self::Attached(attached) => {
                let Some(session) = &attached.session else {
                    bail!("the monitor has ended");
                };
                let snapshot = session.monitor.snapshot().await?;
                let watched = session.watched.borrow().clone();
                let links = session.links.borrow().clone();
                Ok(StatusRecord::new(&watched, &links, &snapshot))
            }
            Self::Daemon(daemon) => match daemon.client.get("/v1/status").await?.record().await? {
                Some(status) => Ok(status),
                None => bail!("the daemon sent no status"),
            },
        }
    }

    /// The recording of frames of this process; `None` if the daemon records.
    pub fn recording(&self, filter: &RecordFilter) -> Option<Recording> {
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

    /// The next item; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> anyhow::Result<Option<FeedItem>> {
        match self {
            Self::Attached(attached) => attached.next().await,
            Self::Daemon(daemon) => daemon.next().await,
        }
    }

    /// Stops detection, and returns the bindings with a pending takeover. Earlier findings remain for
    /// [`Feed::drain_remaining`].
    pub async fn stop(&mut self) -> anyhow::Result<Vec<BindingRecord>> {
        match self {
            Self::Attached(attached) => match attached.session.take() {
                Some(mut session) => session.end().await,
                None => Ok(Vec::new()),
            },
            Self::Daemon(daemon) => {
                let target = format!("/v1/takeovers{}", daemon.query);
                Ok(daemon.client.list(&target).await?)
            }
        }
    }

    /// The items that arrived before the stop and were not read.
    pub fn drain_remaining(&mut self) -> Vec<FeedItem> {
        let Self::Attached(attached) = self else {
            return Vec::new();
        };
        let mut items = Vec::new();
        loop {
            match attached.findings.try_recv() {
                Ok(record) => items.push(FeedItem::Finding(record, None)),
                Err(TryRecvError::Lagged(missed)) => items.push(FeedItem::Missed(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return items,
            }
        }
    }
}

impl AttachedFeed {
    async fn next(&mut self) -> anyhow::Result<Option<FeedItem>> {
        loop {
            let (claims, session) = (&mut self.claims, &mut self.session);
            let Some(session) = session else {
                return Ok(None);
            };
            let claim = async {
                match claims {
                    Some(claims) => claims.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                finding = self.findings.recv() => return Ok(match finding {
                    Ok(record) => Some(FeedItem::Finding(record, None)),
                    Err(RecvError::Lagged(missed)) => Some(FeedItem::Missed(missed)),
                    Err(RecvError::Closed) => None,
                }),
                failure = session.tasks.failure() => return Err(failure.into()),
                event = claim => match event {
                    Ok(event) => {
                        let name = session.watched.borrow().name_of(event.ifindex);
                        let time = probe_datapath::clock::MONOTONIC.to_wall_clock(Timestamp(event.ktime_ns));
                        if let Some(claim) = ClaimRecord::new(&event, name, time) {
                            return Ok(Some(FeedItem::Claim(Box::new(claim))));
                        }
                    }
                    Err(RecvError::Lagged(missed)) => return Ok(Some(FeedItem::Missed(missed))),
                    Err(RecvError::Closed) => return Ok(None),
                },
            }
        }
    }
}

impl DaemonFeed {
    async fn next(&mut self) -> anyhow::Result<Option<FeedItem>> {
        let claims = &mut self.claims;
        let claim = async {
            match claims {
                Some(claims) => claims.record::<ClaimLine>().await,
                None => std::future::pending().await,
            }
        };
        let item = tokio::select! {
            line = self.findings.record::<HistoryLine>() => line?.map(|line| match line {
                HistoryLine::Missed(missed) => FeedItem::Missed(missed.missed),
                HistoryLine::Finding(finding) => {
                    FeedItem::Finding(Arc::new(finding.record), Some(finding.sequence))
                }
            }),
            line = claim => line?.map(|line| match line {
                ClaimLine::Missed(missed) => FeedItem::Missed(missed.missed),
                ClaimLine::Claim(claim) => FeedItem::Claim(claim),
            }),
        };
        ensure!(item.is_some(), "the daemon has ended");
        Ok(item)
    }

    /// Its client and query.
    pub fn client(&self) -> (&Client, &str) {
        (&self.client, &self.query)
    }
}

/// A line of the daemon.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum ClaimLine {
    Missed(crate::daemon::serve::MissedRecord),
    Claim(Box<ClaimRecord>),
}
