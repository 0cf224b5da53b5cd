//! Captures: the frames behind findings as pcapng, and findings from any capture.
//!
//! What is written has everything that the kernel side said of a frame, so reading it back gives the same
//! findings. For other captures, what the kernel would have said is derived by its own rules.

mod blocks;
mod content;
mod frame;
mod frames;
mod host;
mod note;
mod playback;
mod reader;
mod recorder;
mod replay;
mod writer;

pub use blocks::Blocks;
pub use content::Tally;
pub use frames::frames;
pub use host::Host;
pub use playback::{Playback, Progress};
pub use reader::{CaptureError, Reader};
pub use recorder::Recorder;
pub use writer::end_of_listening;
