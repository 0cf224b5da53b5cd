//! Asking on behalf of another verb: nothing is written, what was found out is kept.

use std::{net::Ipv4Addr, time::Duration};

use probe_detect::DetectConfig;
use probe_prober::{
    ArpSocket,
    check::{Lot, Surroundings},
};

use super::{
    audience::{Audience, Keeper},
    inquiry::{Inquiry, Order},
    terms::Terms,
};
use crate::cli::session::StopSignal;

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_millis(500);

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    /// It could not be done.
    #[error("{0}")]
    Impossible(String),
    /// Somebody stopped it.
    #[error("stopped")]
    Interrupted,
}

/// Asks about these, so many a second if they are many; of one address the frames are kept as well.
pub async fn ask(
    surroundings: Surroundings,
    lots: Vec<Lot>,
    rate: u32,
    frames_of: Option<Ipv4Addr>,
    stop: &mut StopSignal,
) -> Result<Keeper, Unasked> {
    let order = Order {
        rate,
        wait: WAIT,
        duration: None,
        from: None,
        config: DetectConfig::default(),
    };
    let audience = Audience::Keeper(Keeper {
        frames_of,
        ..Keeper::default()
    });
    let impossible = |error: anyhow::Error| Unasked::Impossible(format!("{error:#}"));
    let sender = ArpSocket::sender().map_err(|error| impossible(error.into()))?;
    let terms = Terms::nothing();
    let inquiry = Inquiry::open(&order, terms, audience, sender, surroundings, lots).await;
    let outcome = inquiry.map_err(impossible)?.run(stop).await;
    let outcome = outcome.map_err(impossible)?;
    if outcome.interrupted {
        return Err(Unasked::Interrupted);
    }
    match (outcome.broken, outcome.audience) {
        (Some(error), _) => Err(impossible(error)),
        (None, Audience::Keeper(keeper)) => Ok(keeper),
        (None, Audience::Printer(_)) => Ok(Keeper::default()),
    }
}
