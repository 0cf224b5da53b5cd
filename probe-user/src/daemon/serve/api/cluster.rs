//! What the daemon knows of the cluster, as it is known now.

use std::{
    convert::Infallible,
    io::{self, BufWriter, Write},
};

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use probe_cluster::{ClusterObjects, Node};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task};

use super::{Api, ApiError};
use crate::daemon::annotate::NodeListSource;

/// Pieces that wait for a slow client.
const PIECES: usize = 4;
/// How large a piece is.
const PIECE: usize = 64 << 10;

/// What is known of the cluster: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClusterObjectsRecord {
    /// What the API server said.
    #[serde(flatten)]
    pub objects: ClusterObjects,
    /// Its nodes; nothing while they are not known.
    #[serde(default)]
    pub nodes: Option<Vec<Node>>,
    /// The node that the daemon runs on, if it knows.
    #[serde(default)]
    pub node: Option<String>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct ClusterResponse<'a> {
    #[serde(flatten)]
    objects: &'a ClusterObjects,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<&'a [Node]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

/// The cluster. Of ten thousand services it is some megabytes of text, which are never in memory at once.
pub(super) async fn cluster(State(api): State<Api>) -> Result<Response, ApiError> {
    let annotator = api.sources.annotator.ok_or(ApiError::NoCluster)?;
    // Who asks for everything wants the nodes too.
    let known = annotator.resolve(NodeListSource::LISTED).await;
    let nodes = annotator.nodes();
    let (sender, receiver) = mpsc::channel(PIECES);
    task::spawn_blocking(move || {
        let answer = ClusterResponse {
            objects: known.cluster.objects(),
            nodes: nodes.as_deref().map(Vec::as_slice),
            node: annotator.own_node_name(),
        };
        let mut out = BufWriter::with_capacity(PIECE, ChunkWriter(sender));
        // An error means that the client is gone.
        let _ = serde_json::to_writer(&mut out, &answer);
        let _ = out.write_all(b"\n").and_then(|()| out.flush());
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(piece), receiver))
    });
    let head = [(CONTENT_TYPE, "application/json")];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// Hands on what is written, as fast as the client takes it.
struct ChunkWriter(mpsc::Sender<Bytes>);

impl Write for ChunkWriter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
