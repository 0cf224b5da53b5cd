//! What detection promises, a test for each sentence. A test's name is the behaviour that it holds.

mod duplicate;
mod lab;
mod local;
mod others;
mod owners;
mod resolution;
mod takeover;
