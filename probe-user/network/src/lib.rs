//! Reads the links, addresses, routes and neighbours of this host by netlink.
//!
//! Must not depend on bpf, packet sockets or anything above `detect` and `model`.

#![forbid(unsafe_code)]

pub mod host_facts;
pub mod links;
pub mod neighbours;
