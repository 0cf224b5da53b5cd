//! The metrics of each interface: the counters of the kernel, and the attachment.

use std::collections::BTreeSet;

use probe_common::{
    counter::{Counter, Direction, EmitOutcome},
    parse::MalformedReason,
    wire::{BogusFrameReason, FrameKind, Operation},
};
use probe_datapath::{CounterReader, KernelError};
use probe_model::{
    Link, Links, on_link,
    watched::{WatchState, WatchedInterfaces},
};

use super::{
    family::{MetricFamily, bool_value},
    list,
};
use crate::daemon::monitor::MonitorSnapshot;

/// Reads the counters of the kernel.
pub fn counters(
    snapshot: &MonitorSnapshot,
    watched: &WatchedInterfaces,
    reader: &CounterReader,
) -> Result<Vec<String>, KernelError> {
    let mut frames = MetricFamily::new(list::FRAMES);
    let mut malformed = MetricFamily::new(list::MALFORMED);
    let mut bogus = MetricFamily::new(list::BOGUS);
    let mut claims = MetricFamily::new(list::CLAIMS);
    let mut probes = MetricFamily::new(list::PROBES);
    let mut outcomes = MetricFamily::new(list::OUTCOMES);
    let mut received = MetricFamily::new(list::RECEIVED);
    for interface in watched.iter() {
        let name = interface.name.as_str();
        for &direction in Direction::ALL {
            let counters = reader.read_named(interface.ifindex, name, direction)?;
            let way = direction.label();
            for &operation in Operation::ALL {
                let count = counters.get(Counter::Frames(operation));
                frames.add([name, way, operation.label()], count);
            }
            for &reason in MalformedReason::ALL {
                let count = counters.get(Counter::Malformed(reason));
                malformed.add([name, way, reason.label()], count);
            }
            for &reason in BogusFrameReason::ALL {
                let count = counters.get(Counter::Bogus(reason));
                bogus.add([name, way, reason.label()], count);
            }
            claims.add([name, way], counters.get(Counter::Claims));
            probes.add([name, way], counters.get(Counter::Probes));
            for &kind in FrameKind::ALL {
                for (outcome, count) in EmitOutcome::ALL.iter().zip(counters.outcomes(kind)) {
                    outcomes.add([name, way, kind.label(), outcome.label()], count);
                }
            }
            let count = snapshot.received.get(&(interface.ifindex, direction));
            received.add([name, way], count.copied().unwrap_or_default());
        }
    }
    Ok(vec![
        frames.finish(),
        malformed.finish(),
        bogus.finish(),
        claims.finish(),
        probes.finish(),
        outcomes.finish(),
        received.finish(),
    ])
}

/// The attachment of each interface.
pub fn info(watched: &WatchedInterfaces, links: &Links) -> String {
    let mut info = MetricFamily::new(list::INTERFACE_INFO);
    let mut attached = MetricFamily::new(list::INTERFACE_ATTACHED);
    let mut link_up = MetricFamily::new(list::INTERFACE_LINK_UP);
    for interface in watched.iter() {
        let name = interface.name.as_str();
        let link = links.get(interface.ifindex);
        link_up.add([name], bool_value(link.is_some_and(Link::is_operational)));
        match &interface.state {
            WatchState::Attached { plan, vlan_visible } => {
                let visible = if *vlan_visible { "1" } else { "0" };
                info.add([name, plan.mode.label(), plan.reason.label(), visible], 1);
                attached.add([name], bool_value(true));
            }
            WatchState::Failed { .. } => attached.add([name], bool_value(false)),
        }
    }
    let mut macs = MetricFamily::new(list::LOCAL_MAC_INFO);
    for (interface, mac) in local_macs(watched, links) {
        macs.add([interface, &mac], 1);
    }
    [
        info.finish(),
        attached.finish(),
        link_up.finish(),
        macs.finish(),
    ]
    .concat()
}

/// The MACs that this host claims addresses with: those of the watched interfaces and of the interfaces stacked on
/// them, without those of containers, of which there may be thousands.
fn local_macs<'a>(watched: &WatchedInterfaces, links: &'a Links) -> BTreeSet<(&'a str, String)> {
    let is_watched = |index| watched.contains(index);
    links
        .iter()
        .filter(|link| {
            is_watched(link.index)
                || !link.addresses.is_empty()
                    && !on_link::segments(links, link, &is_watched).is_empty()
        })
        .filter_map(|link| Some((link.name.as_str(), link.mac?.to_string())))
        .collect()
}
