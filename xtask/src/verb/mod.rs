//! The verbs, a file each.

pub mod bench;
pub mod build;
pub mod demo;
pub mod kernels;
pub mod lint;
pub mod run;
pub mod setup;
pub mod test;
