//! What detection promises, a test for each sentence. A test's name is the behaviour that it holds.

mod duplicate;
mod lab;
mod local;
mod model;
mod others;
mod owners;
mod properties;
mod resolution;
mod takeover;
