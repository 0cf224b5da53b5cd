//! A Kubernetes control plane: a real API server with its etcd, on a host of its own.
//!
//! There are no controllers and no kubelets: a test creates the objects that they would create, and simulated hosts
//! send the frames that nodes would send. Clients reach the API server through a management network that is
//! separate from the monitored network. A [`FaultyServer`] sends the responses that a real API server does not
//! send.

mod access;
mod api;
mod audit;
mod certificate;
mod faulty_server;
mod object;
mod server;

pub use self::{
    access::{Access, Account},
    api::Api,
    audit::AuditEvent,
    faulty_server::{Fault, FaultyServer},
    object::{
        install_metallb, l2_status, metallb, metallb_definitions, namespace, node, pool, service,
    },
    server::{Kubernetes, MANAGEMENT},
};
