//! Which Events are made, which are only counted, and which are too many. Pure.
//!
//! The same again becomes a higher count of the Event that there is, as client-go's recorder does it; and no Service
//! gets more than a few a minute, whatever happens to its address.

use std::{collections::BTreeMap, time::Duration};

use probe_model::Named;
use tokio::time::Instant;

use super::occasion::Occasion;

/// Services that are remembered.
const SERVICES: usize = 2_000;
/// Events that one Service gets at once…
const BURST: f64 = 5.0;
/// …and after that one in this time.
const REFILL: Duration = Duration::from_mins(1);
/// The same in this time is no news.
const SAME: Duration = Duration::from_secs(30);
/// The API server forgets Events an hour after they were last changed, by default.
const FORGOTTEN: Duration = Duration::from_mins(50);

/// What to do about an occasion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make an Event.
    Make,
    /// Say of the Event of this name that it was so often.
    Count {
        /// Its name.
        name: String,
        /// How often by now.
        count: u32,
    },
    /// It was just told.
    Nothing,
    /// There were too many of late.
    TooMany,
}

/// What the last Event of a reason was.
#[derive(Debug)]
struct Last {
    name: String,
    note: String,
    count: u32,
    at: Instant,
}

#[derive(Debug)]
struct Page {
    events: BTreeMap<&'static str, Last>,
    tokens: f64,
    refilled: Instant,
}

/// What was told on which Service.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<Named, Page>);

impl Ledger {
    /// What to do about this now. What is then done is to be written in by [`Self::note`].
    pub fn judge(&mut self, occasion: &Occasion, now: Instant) -> Step {
        self.make_room(&occasion.service);
        let page = self.page(&occasion.service, now);
        let gained = now.duration_since(page.refilled).as_secs_f64() / REFILL.as_secs_f64();
        page.tokens = (page.tokens + gained).min(BURST);
        page.refilled = now;
        let last = page.events.get(occasion.reason);
        let last = last.filter(|last| last.note == occasion.note);
        match last.map(|last| (now.duration_since(last.at), last)) {
            Some((age, _)) if age < SAME => Step::Nothing,
            _ if page.tokens < 1.0 => Step::TooMany,
            Some((age, last)) if age < FORGOTTEN => Step::Count {
                name: last.name.clone(),
                count: last.count.saturating_add(1),
            },
            _ => Step::Make,
        }
    }

    /// An Event of this name is there now, and says that it was so often.
    pub fn note(&mut self, occasion: &Occasion, name: String, count: u32, now: Instant) {
        let page = self.page(&occasion.service, now);
        page.tokens -= 1.0;
        let last = Last {
            name,
            note: occasion.note.clone(),
            count,
            at: now,
        };
        page.events.insert(occasion.reason, last);
    }

    /// The Event is not there any more.
    pub fn forget(&mut self, occasion: &Occasion) {
        if let Some(page) = self.0.get_mut(&occasion.service) {
            page.events.remove(occasion.reason);
        }
    }

    fn page(&mut self, service: &Named, now: Instant) -> &mut Page {
        self.0.entry(service.clone()).or_insert_with(|| Page {
            events: BTreeMap::new(),
            tokens: BURST,
            refilled: now,
        })
    }

    /// The one that was told least recently goes.
    fn make_room(&mut self, service: &Named) {
        if self.0.len() < SERVICES || self.0.contains_key(service) {
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

    fn occasion(name: &str, note: &str) -> Occasion {
        Occasion {
            service: Named {
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
        ledger: Ledger,
        start: Instant,
        made: u32,
    }

    impl Lab {
        fn new() -> Self {
            Self {
                ledger: Ledger::default(),
                start: Instant::now(),
                made: 0,
            }
        }

        /// What is done at this second, and written in.
        fn at(&mut self, second: u64, occasion: &Occasion) -> Step {
            let now = self.start + Duration::from_secs(second);
            let step = self.ledger.judge(occasion, now);
            match &step {
                Step::Make => {
                    self.made += 1;
                    let name = format!("e{}", self.made);
                    self.ledger.note(occasion, name, 1, now);
                }
                Step::Count { name, count } => {
                    self.ledger.note(occasion, name.clone(), *count, now);
                }
                Step::Nothing | Step::TooMany => {}
            }
            step
        }
    }

    fn counted(count: u32) -> Step {
        Step::Count {
            name: "e1".to_owned(),
            count,
        }
    }

    #[test]
    fn the_same_again_is_counted_and_at_once_is_nothing() {
        let (mut lab, same) = (Lab::new(), occasion("a", "x"));
        assert_eq!(lab.at(0, &same), Step::Make);
        assert_eq!(lab.at(29, &same), Step::Nothing);
        assert_eq!(lab.at(31, &same), counted(2));
        assert_eq!(lab.at(600, &same), counted(3));
        // The API server has forgotten it by then.
        assert_eq!(lab.at(600 + 50 * 60, &same), Step::Make);
        lab.ledger.forget(&same);
        assert_eq!(lab.at(601 + 50 * 60, &same), Step::Make);
    }

    #[test]
    fn what_says_something_else_is_another_event() {
        let mut lab = Lab::new();
        assert_eq!(lab.at(0, &occasion("a", "x")), Step::Make);
        assert_eq!(lab.at(1, &occasion("a", "y")), Step::Make);
        assert_eq!(lab.at(1, &occasion("b", "x")), Step::Make);
    }

    #[test]
    fn no_service_gets_more_than_a_few_a_minute() {
        let mut lab = Lab::new();
        let made = (0..60).filter(|second| {
            let note = second.to_string();
            lab.at(*second, &occasion("a", &note)) == Step::Make
        });
        assert_eq!(made.count(), 5);
        let late = (60..660).filter(|second| {
            let note = second.to_string();
            lab.at(*second, &occasion("a", &note)) == Step::Make
        });
        assert_eq!(late.count(), 10);
        assert_eq!(lab.at(661, &occasion("b", "x")), Step::Make);
    }

    #[test]
    fn memory_is_bounded() {
        let mut lab = Lab::new();
        for number in 0..3_000 {
            let name = number.to_string();
            assert_eq!(lab.at(number, &occasion(&name, "x")), Step::Make);
        }
        assert_eq!(lab.ledger.0.len(), SERVICES);
    }
}
