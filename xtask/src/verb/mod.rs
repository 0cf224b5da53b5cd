//! The verbs, one module each.

pub mod bench;
pub mod build;
pub mod demo;
pub mod dist;
pub mod fresh_root;
pub mod image;
pub mod kernels;
pub mod lint;
pub mod manifests;
pub mod run;
pub mod setup;
pub mod test;
