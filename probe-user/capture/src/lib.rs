//! Captures: writes the frames behind findings as pcapng, and runs detection over any capture.
//!
//! A file that is written contains everything that the kernel side knew about each frame, so reading it gives the same
//! findings. For other captures that knowledge is derived by the kernel side's own rules. Must not depend on tokio, on
//! sockets or on bpf.

mod blocks;
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
