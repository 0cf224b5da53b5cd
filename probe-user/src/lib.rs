//! The daemon and the command line tool `probe`.
//!
//! Data flows one way: frames become events in the kernel ([`kernel`]), are put in [`order`] and become
//! findings in [`detect`]. [`monitor`] is the one task that joins these; [`serve`] and [`report`] show
//! what it finds.

pub mod active;
pub mod book;
pub mod capture;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod detect;
pub mod doctor;
pub mod drill;
pub mod explain;
pub mod facts;
pub mod filter;
pub mod history;
pub mod interfaces;
pub mod kernel;
pub mod links;
pub mod monitor;
pub mod neighbours;
pub mod notify;
pub mod order;
mod poll;
pub mod pools;
pub mod received;
pub mod recording;
pub mod report;
pub mod segments;
pub mod serve;
pub mod settings;
pub mod tls;
