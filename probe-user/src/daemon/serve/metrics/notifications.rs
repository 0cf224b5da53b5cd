//! The metrics of notifications.

use probe_notify::{Channel, Counts, Ending};

use super::{family::Family, list};

/// What is counted of notifications.
pub fn families(counts: &Counts) -> String {
    let mut messages = Family::new(list::NOTIFICATIONS);
    let mut waiting = Family::new(list::NOTIFICATIONS_WAITING);
    let mut dropped = Family::new(list::NOTIFICATIONS_DROPPED);
    for &channel in Channel::ALL {
        for &ending in Ending::ALL {
            let count = counts.ended(channel, ending);
            messages.add([channel.label(), ending.label()], count);
        }
        waiting.add([channel.label()], counts.waiting(channel));
        dropped.add([channel.label()], counts.dropped(channel));
    }
    [messages.finish(), waiting.finish(), dropped.finish()].concat()
}
