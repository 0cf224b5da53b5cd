//! The lab: a network made of namespaces, with real hosts, raw frames and the real binary in it.
//!
//! The end-to-end tests and `cargo xtask demo` are built on it. It knows the binary only from outside, as
//! its users do: arguments, output, exit status and HTTP.
//!
//! What always holds: nothing outside the namespaces that a lab made is touched, and what it made goes when
//! it is dropped, whether the test passed, failed or panicked. What a killed run left behind goes when the
//! next lab is made.
//!
//! ```no_run
//! use probe_tests::{Lab, Frame};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new()?;
//! let switch = lab.bridge()?;
//! let [client, server] = [switch.host("client")?, switch.host("server")?];
//! client.add_address("192.0.2.1/24")?;
//! server.add_address("192.0.2.10/24")?;
//! client.exec(["ping", "-c1", "192.0.2.10"])?;
//! client.sender()?.send(&Frame::announcement(client.mac(), [192, 0, 2, 1]))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod actor;
mod container;
mod counter_balance;
mod cpu;
mod daemon;
mod finding;
mod frame;
mod host;
mod http;
mod kubernetes;
mod lab;
mod link;
mod manifest;
mod metrics;
mod monitoring;
mod namespace;
mod packet;
mod pcap;
mod process;
mod public_copy;
mod receiver;
mod scenario;
mod seccomp;
mod socket;
mod stage;
mod switch;
mod tool;
mod tool_cache;
mod wait;

pub use actor::{
    DeviceTracking, DhcpClient, DhcpServer, Keepalived, KubeVip, MetalLbSpeaker, Router, RouterMac,
    Ucarp,
};
pub use container::{Container, Withheld};
pub use counter_balance::Ledger;
pub use cpu::{cpus, pin_this_thread};
pub use daemon::{Daemon, LISTEN, binary};
pub use finding::Finding;
pub use frame::Frame;
pub use host::{Host, INTERFACE};
pub use http::Response;
pub use kubernetes::{
    Access, Account, Api, AuditEvent, Kubernetes, Liar, Lie, MANAGEMENT, install_metallb,
    l2_status, metallb, metallb_definitions, namespace, node, pool, service,
};
pub use lab::Lab;
pub use link::Link;
pub use manifest::{Chart, deploy, kustomize, objects, valid_objects};
pub use metrics::{Metrics, Sample};
pub use monitoring::{Alert, Monitoring, Notification, QueryResult};
pub use packet::{BatchSender, Capture, Captured, ScatteringSender, Sender};
pub use pcap::pcap;
pub use process::{Finished, Process, Stream};
pub use public_copy::{PublicCopy, install};
pub use receiver::{Answer, Authority, ReceivedMessage, Receiver};
pub use scenario::{CLIENT_ADDRESS, Duplicate, SHARED_ADDRESS};
pub use socket::SocketPlace;
pub use stage::{Expected, Scenario, Stage, Wires};
pub use switch::Switch;
pub use tool_cache::{
    DASHBOARD, KUBERNETES, PROMETHEUS, PYTHON_REQUIREMENTS, dashboard_tools, distribution,
    image_layout, kubernetes_program, prometheus_program, python_environment, python_tool,
    tool_cache, workspace,
};
pub use wait::{at_intervals, eventually};
