//! What is expected of each address, and by whom.

use super::expectation::Expectation;
use crate::{
    check::{Judgement, Manner},
    report::CheckRecord,
};

/// What is expected of each address.
pub enum Terms {
    /// Of all the same.
    Plain(Expectation),
}

impl Terms {
    /// Adds to a record what is known from elsewhere.
    pub fn annotate(&self, _record: &mut CheckRecord) {
        match self {
            Self::Plain(_) => {}
        }
    }

    /// Whether what was expected is met; `None` if nothing was, or it cannot be known.
    pub fn is_met(
        &self,
        record: &CheckRecord,
        judgement: &Judgement,
        manner: Manner,
    ) -> Option<bool> {
        match self {
            Self::Plain(expectation) => expectation.is_met(judgement, manner, record.asked),
        }
    }

    /// What was expected, in words.
    pub fn words(&self, _record: &CheckRecord, manner: Manner) -> String {
        match self {
            Self::Plain(expectation) => expectation.words(manner),
        }
    }
}
