//! The daemon and the command line tool `probe`.

pub mod detect;
