//! The lab: a test network made of network namespaces, with hosts that send real frames and run the real binary.
//!
//! The end-to-end tests and `cargo xtask demo` use it. It uses only the public interface of the binary: arguments,
//! output, exit status and HTTP.
//!
//! A lab changes nothing outside its own namespaces and removes them when it is dropped, even if the test fails or
//! panics. The next lab removes what a killed run left behind.
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
mod network_programs;
mod packet;
mod pcap;
mod process;
mod public_copy;
mod receiver;
mod scenario;
mod seccomp;
mod socket;
mod switch;
mod three_hosts;
mod tool;
mod tool_cache;
mod wait;

pub use container::{Container, Withheld};
pub use counter_balance::CounterBalance;
pub use cpu::{cpus, pin_this_thread};
pub use daemon::{Daemon, LISTEN, binary};
pub use finding::Finding;
pub use frame::Frame;
pub use host::{Host, INTERFACE};
pub use http::Response;
pub use kubernetes::{
    Access, Account, Api, AuditEvent, Fault, FaultyServer, Kubernetes, MANAGEMENT, install_metallb,
    l2_status, metallb, metallb_definitions, namespace, node, pool, service,
};
pub use lab::Lab;
pub use link::Link;
pub use manifest::{Chart, deploy, kustomize, objects, valid_objects};
pub use metrics::{Metrics, Sample};
pub use monitoring::{Alert, Monitoring, Notification, QueryResult};
pub use network_programs::{
    DeviceTracking, DhcpClient, DhcpServer, Keepalived, KubeVip, MetalLbSpeaker, Router, RouterMac,
    Ucarp,
};
pub use packet::{BatchSender, Capture, Captured, ScatteringSender, Sender};
pub use pcap::pcap;
pub use process::{Finished, Process, Stream};
pub use public_copy::{PublicCopy, install};
pub use receiver::{Authority, ReceivedMessage, Receiver, ReceiverResponse};
pub use scenario::{ExpectedFinding, Scenario, ScenarioRun, Topology};
pub use socket::DaemonSocket;
pub use switch::Switch;
pub use three_hosts::{CLIENT_ADDRESS, SHARED_ADDRESS, ThreeHosts};
pub use tool_cache::{
    DASHBOARD, KUBERNETES, PROMETHEUS, PYTHON_REQUIREMENTS, dashboard_tools, distribution,
    image_layout, kubernetes_program, prometheus_program, python_environment, python_tool,
    tool_cache, workspace,
};
pub use wait::{at_intervals, eventually};
