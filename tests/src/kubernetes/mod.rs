//! A Kubernetes control plane: a real API server with its etcd, on a host of its own.
//!
//! Nothing else of a cluster is there: no controllers, no kubelets. A test makes the objects that those would make;
//! actors on hosts play what nodes do on the wire. The hosts that ask it reach it by a management network, apart from
//! the network that is watched. For what a real API server does not do there is a [`Liar`].

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
    faulty_server::{Liar, Lie},
    object::{
        install_metallb, l2_status, metallb, metallb_definitions, namespace, node, pool, service,
    },
    server::{Kubernetes, MANAGEMENT},
};
