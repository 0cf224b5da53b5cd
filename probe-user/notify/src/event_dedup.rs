//! Which Events are made, which are only counted, and which are too many. Pure.
//!
//! The same again becomes a higher count of the Event that there is, as client-go's recorder does it; and no Service
//! gets more than a few a minute, whatever happens to its address.

use std::{collections::BTreeMap, time::Duration};

use probe_model::NamespacedName;
use tokio::time::Instant;

use super::kubernetes_event::KubernetesEvent;

/// Services that are remembered.
const MAX_SERVICES: usize = 2_000;
/// Events that one Service gets at once…
const BURST: f64 = 5.0;
/// …and after that one in this time.
const REFILL: Duration = Duration::from_mins(1);
/// The same in this time is no notification.
const SAME_EVENT_WINDOW: Duration = Duration::from_secs(30);
/// The API server forgets Events an hour after they were last changed, by default.
const ENTRY_LIFETIME: Duration = Duration::from_mins(50);

/// What to do about an occasion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupeAction {
    /// Make an Event.
    Create,
    /// Say of the Event of this name that it was so often.
    UpdateCount {
        /// Its name.
        name: String,
        /// How often by now.
        count: u32,
    },
    /// It was just told.
    Skip,
    /// There were too many of late.
    RateLimited,
}

/// What the last Event of a reason was.
#[derive(Debug)]
struct LastEvent {
    name: String,
    note: String,
    count: u32,
    at: Instant,
}

#[derive(Debug)]
struct ServiceEvents {
    events: BTreeMap<&'static str, LastEvent>,
    tokens: f64,
    refilled: Instant,
}

/// What was told on which Service.
#[derive(Debug, Default)]
pub struct EventDeduplicator(BTreeMap<NamespacedName, ServiceEvents>);

impl EventDeduplicator {
    /// What to do about this now. What is then done is to be written in by [`Self::record`].
    pub fn dedupe(&mut self, occasion: &KubernetesEvent, now: Instant) -> DedupeAction {
        self.evict_oldest(&occasion.service);
        let page = self.service_events(&occasion.service, now);
        let gained = now.duration_since(page.refilled).as_secs_f64() / REFILL.as_secs_f64();
        page.tokens = (page.tokens + gained).min(BURST);
        page.refilled = now;
        let last = page.events.get(occasion.reason);
        let last = last.filter(|last| last.note == occasion.note);
        match last.map(|last| (now.duration_since(last.at), last)) {
            Some((age, _)) if age < SAME_EVENT_WINDOW => DedupeAction::Skip,
            _ if page.tokens < 1.0 => DedupeAction::RateLimited,
            Some((age, last)) if age < ENTRY_LIFETIME => DedupeAction::UpdateCount {
                name: last.name.clone(),
                count: last.count.saturating_add(1),
            },
            _ => DedupeAction::Create,
        }
    }

    /// An Event of this name is there now, and says that it was so often.
    pub fn record(&mut self, occasion: &KubernetesEvent, name: String, count: u32, now: Instant) {
        let page = self.service_events(&occasion.service, now);
        page.tokens -= 1.0;
        let last = LastEvent {
            name,
            note: occasion.note.clone(),
            count,
            at: now,
        };
        page.events.insert(occasion.reason, last);
    }

    /// The Event is not there any more.
    pub fn forget(&mut self, occasion: &KubernetesEvent) {
        if let Some(page) = self.0.get_mut(&occasion.service) {
            page.events.remove(occasion.reason);
        }
    }

    fn service_events(&mut self, service: &NamespacedName, now: Instant) -> &mut ServiceEvents {
        self.0
            .entry(service.clone())
            .or_insert_with(|| ServiceEvents {
                events: BTreeMap::new(),
                tokens: BURST,
                refilled: now,
            })
    }

    /// The one that was told least recently goes.
    fn evict_oldest(&mut self, service: &NamespacedName) {
        if self.0.len() < MAX_SERVICES || self.0.contains_key(service) {
            return;
        }
        let oldest = self.0.iter().min_by_key(|(_, page)| page.refilled);
        if let Some(oldest) = oldest.map(|(service, _)| service.clone()) {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occasion(name: &str, note: &str) -> KubernetesEvent {
        KubernetesEvent {
            service: NamespacedName {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            },
            uid: "u".to_owned(),
            reason: "AddressConflict",
            is_warning: true,
            note: note.to_owned(),
        }
    }

    struct Lab {
        ledger: EventDeduplicator,
        start: Instant,
        made: u32,
    }

    impl Lab {
        fn new() -> Self {
            Self {
                ledger: EventDeduplicator::default(),
                start: Instant::now(),
                made: 0,
            }
        }

        /// What is done at this second, and written in.
        fn at(&mut self, second: u64, occasion: &KubernetesEvent) -> DedupeAction {
            let now = self.start + Duration::from_secs(second);
            let step = self.ledger.dedupe(occasion, now);
            match &step {
                DedupeAction::Create => {
                    self.made += 1;
                    let name = format!("e{}", self.made);
                    self.ledger.record(occasion, name, 1, now);
                }
                DedupeAction::UpdateCount { name, count } => {
                    self.ledger.record(occasion, name.clone(), *count, now);
                }
                DedupeAction::Skip | DedupeAction::RateLimited => {}
            }
            step
        }
    }

    fn counted(count: u32) -> DedupeAction {
        DedupeAction::UpdateCount {
            name: "e1".to_owned(),
            count,
        }
    }

    #[test]
    fn the_same_again_is_counted_and_at_once_is_nothing() {
        let (mut lab, same) = (Lab::new(), occasion("a", "x"));
        assert_eq!(lab.at(0, &same), DedupeAction::Create);
        assert_eq!(lab.at(29, &same), DedupeAction::Skip);
        assert_eq!(lab.at(31, &same), counted(2));
        assert_eq!(lab.at(600, &same), counted(3));
        // The API server has forgotten it by then.
        assert_eq!(lab.at(600 + 50 * 60, &same), DedupeAction::Create);
        lab.ledger.forget(&same);
        assert_eq!(lab.at(601 + 50 * 60, &same), DedupeAction::Create);
    }

    #[test]
    fn what_says_something_else_is_another_event() {
        let mut lab = Lab::new();
        assert_eq!(lab.at(0, &occasion("a", "x")), DedupeAction::Create);
        assert_eq!(lab.at(1, &occasion("a", "y")), DedupeAction::Create);
        assert_eq!(lab.at(1, &occasion("b", "x")), DedupeAction::Create);
    }

    #[test]
    fn no_service_gets_more_than_a_few_a_minute() {
        let mut lab = Lab::new();
        let made = (0..60).filter(|second| {
            let note = second.to_string();
            lab.at(*second, &occasion("a", &note)) == DedupeAction::Create
        });
        assert_eq!(made.count(), 5);
        let late = (60..660).filter(|second| {
            let note = second.to_string();
            lab.at(*second, &occasion("a", &note)) == DedupeAction::Create
        });
        assert_eq!(late.count(), 10);
        assert_eq!(lab.at(661, &occasion("b", "x")), DedupeAction::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let mut lab = Lab::new();
        for number in 0..3_000 {
            let name = number.to_string();
            assert_eq!(lab.at(number, &occasion(&name, "x")), DedupeAction::Create);
        }
        assert_eq!(lab.ledger.0.len(), MAX_SERVICES);
    }
}
