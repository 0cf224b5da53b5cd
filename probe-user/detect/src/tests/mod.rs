//! Tests of the documented behaviour. A test's name is the behaviour.

mod announcers;
mod bounds;
mod clock;
mod duplicate;
mod events;
mod expected;
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
mod test_detector;
