//! Deduplicates Events: decides which are created, which are counted, and which exceed the rate limit. Pure.
//!
//! The same Event again increments the count of the existing one; and no Service gets more than a few a minute,
//! whatever happens to its address. `kube::runtime::events::Recorder` is not used: it treats Events with the same
//! reason as equal regardless of their note, so that a conflict between other owners would only increment the count of
//! an Event that names the first ones.

use std::{collections::BTreeMap, time::Duration};

use probe_model::NamespacedName;
use tokio::time::Instant;

use super::kubernetes_event::KubernetesEvent;

/// The number of Services whose Events are remembered.
const MAX_SERVICES: usize = 2_000;
/// The number of Events that a Service gets at once…
const BURST: f64 = 5.0;
/// …and the interval of further ones.
const REFILL: Duration = Duration::from_mins(1);
/// The same Event within this time is skipped.
const SAME_EVENT_WINDOW: Duration = Duration::from_secs(30);
/// The API server deletes Events an hour after their last change, by default.
const EVENT_LIFETIME: Duration = Duration::from_mins(50);

/// The action for an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupeAction {
    /// Create it.
    Create,
    /// Set the count of the existing Event.
    UpdateCount {
        /// The name of the existing Event.
        name: String,
        /// Its new count.
        count: u32,
    },
    /// Nothing: it was written just now.
    Skip,
    /// Nothing: the Service has reached its rate limit.
    RateLimited,
}

/// The last Event of a reason.
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

/// The last Events of each Service.
#[derive(Debug, Default)]
pub struct EventDeduplicator(BTreeMap<NamespacedName, ServiceEvents>);

impl EventDeduplicator {
    /// The action for an Event now. The caller reports it with [`Self::record`].
    pub fn dedupe(&mut self, event: &KubernetesEvent, now: Instant) -> DedupeAction {
        self.evict_oldest(&event.service);
        let service = self.service_events(&event.service, now);
        let refill = now.duration_since(service.refilled).as_secs_f64() / REFILL.as_secs_f64();
        service.tokens = (service.tokens + refill).min(BURST);
        service.refilled = now;
        let last = service.events.get(event.reason);
        let last = last.filter(|last| last.note == event.note);
        match last.map(|last| (now.duration_since(last.at), last)) {
            Some((age, _)) if age < SAME_EVENT_WINDOW => DedupeAction::Skip,
            _ if service.tokens < 1.0 => DedupeAction::RateLimited,
            Some((age, last)) if age < EVENT_LIFETIME => DedupeAction::UpdateCount {
                name: last.name.clone(),
                count: last.count.saturating_add(1),
            },
            _ => DedupeAction::Create,
        }
    }

    /// Records that the Event of this name exists with this count.
    pub fn record(&mut self, event: &KubernetesEvent, name: String, count: u32, now: Instant) {
        let service = self.service_events(&event.service, now);
        service.tokens -= 1.0;
        let last = LastEvent {
            name,
            note: event.note.clone(),
            count,
            at: now,
        };
        service.events.insert(event.reason, last);
    }

    /// Records that the Event does not exist any more.
    pub fn forget(&mut self, event: &KubernetesEvent) {
        if let Some(service) = self.0.get_mut(&event.service) {
            service.events.remove(event.reason);
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

    /// Evicts the Service with the oldest last Event if the limit is reached.
    fn evict_oldest(&mut self, service: &NamespacedName) {
        if self.0.len() < MAX_SERVICES || self.0.contains_key(service) {
            return;
        }
        let oldest = self.0.iter().min_by_key(|(_, events)| events.refilled);
        if let Some(oldest) = oldest.map(|(service, _)| service.clone()) {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kubernetes_event::KubernetesEventType, *};

    fn event(name: &str, note: &str) -> KubernetesEvent {
        KubernetesEvent {
            service: NamespacedName {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            },
            uid: "u".to_owned(),
            reason: "AddressConflict",
            event_type: KubernetesEventType::Warning,
            note: note.to_owned(),
        }
    }

    struct Fixture {
        deduplicator: EventDeduplicator,
        start: Instant,
        created: u32,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                deduplicator: EventDeduplicator::default(),
                start: Instant::now(),
                created: 0,
            }
        }

        /// Decides at this second, and carries the action out.
        fn at(&mut self, second: u64, event: &KubernetesEvent) -> DedupeAction {
            let now = self.start + Duration::from_secs(second);
            let action = self.deduplicator.dedupe(event, now);
            match &action {
                DedupeAction::Create => {
                    self.created += 1;
                    let name = format!("e{}", self.created);
                    self.deduplicator.record(event, name, 1, now);
                }
                DedupeAction::UpdateCount { name, count } => {
                    self.deduplicator.record(event, name.clone(), *count, now);
                }
                DedupeAction::Skip | DedupeAction::RateLimited => {}
            }
            action
        }
    }

    fn counted(count: u32) -> DedupeAction {
        DedupeAction::UpdateCount {
            name: "e1".to_owned(),
            count,
        }
    }

    #[test]
    fn repeated_event_is_counted_and_an_immediate_repeat_is_skipped() {
        let (mut fixture, same) = (Fixture::new(), event("a", "x"));
        assert_eq!(fixture.at(0, &same), DedupeAction::Create);
        assert_eq!(fixture.at(29, &same), DedupeAction::Skip);
        assert_eq!(fixture.at(31, &same), counted(2));
        assert_eq!(fixture.at(600, &same), counted(3));
        // The API server has deleted it by then.
        assert_eq!(fixture.at(600 + 50 * 60, &same), DedupeAction::Create);
        fixture.deduplicator.forget(&same);
        assert_eq!(fixture.at(601 + 50 * 60, &same), DedupeAction::Create);
    }

    #[test]
    fn another_note_is_another_event() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.at(0, &event("a", "x")), DedupeAction::Create);
        assert_eq!(fixture.at(1, &event("a", "y")), DedupeAction::Create);
        assert_eq!(fixture.at(1, &event("b", "x")), DedupeAction::Create);
    }

    #[test]
    fn events_per_service_and_minute_are_limited() {
        let mut fixture = Fixture::new();
        let mut created = |seconds: std::ops::Range<u64>| {
            let created = seconds.filter(|second| {
                let event = event("a", &second.to_string());
                fixture.at(*second, &event) == DedupeAction::Create
            });
            created.count()
        };
        assert_eq!(created(0..60), 5);
        assert_eq!(created(60..660), 10);
        assert_eq!(fixture.at(661, &event("b", "x")), DedupeAction::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let mut fixture = Fixture::new();
        for number in 0..3_000 {
            let event = event(&number.to_string(), "x");
            assert_eq!(fixture.at(number, &event), DedupeAction::Create);
        }
        assert_eq!(fixture.deduplicator.0.len(), MAX_SERVICES);
    }
}
