//! The files that are deployed with the daemon: manifests, container, systemd unit, alerting rules and dashboard.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod alerting;
mod container;
mod dashboard;
mod distribution;
mod documentation;
mod manifests;
mod rules;
mod systemd;
