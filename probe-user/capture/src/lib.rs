//! Writes frames of findings as pcapng, and runs detection over captures.
//!
//! A written file contains all fields of the events, so that detection over it gives the same findings. For other captures
//! these fields are derived by the event filter of the BPF programs. Must not depend on tokio, on sockets or on bpf(2).

mod blocks;
mod compression;
mod cooked;
mod decode;
mod frame_comment;
mod frames;
mod host_comments;
mod playback;
mod reader;
mod recorder;
mod replay;
mod writer;

pub use blocks::BlockSplitter;
pub use decode::CaptureStatistics;
pub use frames::frames;
pub use host_comments::CapturedHost;
pub use playback::{Playback, PlaybackEvent};
pub use reader::{CaptureError, CaptureReader};
pub use recorder::CaptureRecorder;
pub use writer::statistics_block;
