//! The cluster data of the daemon.

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

/// Maximum number of chunks that wait for a slow client.
const PIECES: usize = 4;
/// The size of a chunk in bytes.
const PIECE: usize = 64 << 10;

/// The cluster data: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClusterObjectsRecord {
    /// The objects.
    #[serde(flatten)]
    pub objects: ClusterObjects,
    /// Its nodes; `None` while unknown.
    #[serde(default)]
    pub nodes: Option<Vec<Node>>,
    /// The node of the daemon, if known.
    #[serde(default)]
    pub node: Option<String>,
}

/// The same with borrowed data, for serialization.
#[derive(Serialize)]
struct ClusterResponse<'a> {
    #[serde(flatten)]
    objects: &'a ClusterObjects,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<&'a [Node]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

/// The cluster data. For ten thousand services it is several megabytes of text, which are streamed.
pub(super) async fn cluster(State(api): State<Api>) -> Result<Response, ApiError> {
    let annotator = api.sources.annotator.ok_or(ApiError::NoCluster)?;
    // Include the nodes.
    let known = annotator.resolve(NodeListSource::LISTED).await;
    let nodes = annotator.nodes();
    let (sender, receiver) = mpsc::channel(PIECES);
    task::spawn_blocking(move || {
        let answer = ClusterResponse {
            objects: known.cluster.objects(),
            nodes: nodes.as_deref().map(Vec::as_slice),
            node: annotator.node_name(),
        };
        let mut out = BufWriter::with_capacity(PIECE, ChunkWriter(sender));
        // An error means that the client has disconnected.
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

/// Streams written data at the pace of the client.
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
