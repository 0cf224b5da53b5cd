//! Who plays in a scenario: real programs as Debian has them, and stations that send, frame by frame, what
//! other programs were seen to send.

mod device_tracking;
mod dhcp;
mod keepalived;
mod kube_vip;
mod metallb;
mod station;
mod ucarp;

pub use device_tracking::DeviceTracking;
pub use dhcp::{DhcpClient, DhcpServer};
pub use keepalived::{Keepalived, Router, RouterMac};
pub use kube_vip::KubeVip;
pub use metallb::MetalLbSpeaker;
pub use ucarp::Ucarp;
