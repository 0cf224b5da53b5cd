//! Captures: the frames behind findings as pcapng, and findings from any capture.
//!
//! What is written has everything that the kernel side said of a frame, so reading it back gives the same
//! findings. For other captures, what the kernel would have said is derived by its own rules.

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
