//! What detection promises, a test for each sentence. A test's name is the behaviour that it holds.

mod announcers;
mod bounds;
mod clock;
mod duplicate;
mod events;
mod expected;
mod lab;
mod local;
mod model;
mod others;
mod owners;
mod pages;
mod properties;
mod reconfigure;
mod resolution;
mod stale;
mod takeover;
