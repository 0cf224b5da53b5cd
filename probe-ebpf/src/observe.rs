//! The path of one frame: parse, count, decide, emit.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_ktime_get_ns};
use aya_log_ebpf::warn;
use probe_common::{
    counter::{Counter, Counters, EmitOutcome},
    event::{ArpEvent, ClaimObservation, Hook},
    event_filter::{
        self, AddressKey, FilterDecision, FilterSettings, FilterStep, RateLimit, RequestState,
        SECOND_NS, TokenBucket,
    },
    parse::{FrameBytes, ParsedFrame, parse},
    wire::{ArpFrame, FrameKind, Operation, VlanTag},
};

use crate::maps::{self, MapValue, Ring};

/// The rate of log lines per CPU: once a minute, because they report a misconfiguration.
const LOG_RATE: RateLimit = RateLimit {
    interval_ns: 60 * SECOND_NS,
    tolerance_ns: 0,
};

/// Observes one frame. A frame that is not ARP costs one comparison.
#[inline(always)]
pub fn frame<B: FrameBytes, C: EbpfContext>(
    bytes: &B,
    ctx: &C,
    stripped: VlanTag,
    ifindex: u32,
    hook: Hook,
) {
    let parsed = parse(bytes, stripped);
    if matches!(parsed, ParsedFrame::NotArp) {
        return;
    }
    let (Some(counters), Some(settings)) =
        (maps::counters(ifindex, hook.direction()), maps::settings())
    else {
        return;
    };
    match parsed {
        ParsedFrame::NotArp => {}
        ParsedFrame::Malformed(reason) => {
            counters.increment(Counter::Frames(Operation::Other));
            counters.increment(Counter::Malformed(reason));
        }
        ParsedFrame::Arp(frame) => {
            counters.increment(Counter::Frames(frame.operation()));
            // SAFETY: the helper only reads the clock.
            let now_ns = unsafe { bpf_ktime_get_ns() };
            Observer {
                ctx,
                frame: &frame,
                ifindex,
                hook,
                now_ns,
                settings,
            }
            .observe(counters);
        }
    }
}

/// A well-formed ARP frame and its context.
struct Observer<'a, C> {
    ctx: &'a C,
    frame: &'a ArpFrame,
    ifindex: u32,
    hook: Hook,
    now_ns: u64,
    settings: MapValue<FilterSettings>,
}

impl<C: EbpfContext> Observer<'_, C> {
    #[inline(always)]
    fn observe(&self, counters: MapValue<Counters>) {
        let (kind, outcome) = if let Some(reason) = self.frame.bogus() {
            counters.increment(Counter::Bogus(reason));
            (FrameKind::Bogus, self.bogus())
        } else if self.frame.spa == [0; 4] {
            counters.increment(Counter::Probes);
            (FrameKind::Probe, self.probe())
        } else {
            counters.increment(Counter::Claims);
            if event_filter::is_resolution_request(self.frame) && self.watches(self.frame.tpa) {
                self.record_request();
            }
            (FrameKind::Claim, self.claim())
        };
        counters.increment(Counter::Outcome(kind, outcome));
    }

    /// A bogus frame changes no state but its token bucket.
    #[inline(always)]
    fn bogus(&self) -> EmitOutcome {
        if !self.watches(self.frame.subject()) {
            return EmitOutcome::Filtered;
        }
        let Some(buckets) = maps::buckets() else {
            return EmitOutcome::RateLimited;
        };
        let rate = self.settings.get().bogus;
        if buckets.update(|buckets| buckets.bogus.take(rate, self.now_ns)) {
            self.emit(FrameKind::Bogus, ClaimObservation::default(), 0)
        } else {
            EmitOutcome::RateLimited
        }
    }

    #[inline(always)]
    fn probe(&self) -> EmitOutcome {
        if !self.watches(self.frame.tpa) {
            return EmitOutcome::Filtered;
        }
        let (Some(request), Some(buckets)) = (self.record_request(), maps::buckets()) else {
            return EmitOutcome::RateLimited;
        };
        let settings = self.settings.get();
        let decision = buckets.update(|buckets| {
            let bucket = &mut buckets.probe;
            request
                .update(|request| request.filter_probe(self.frame, self.now_ns, bucket, &settings))
        });
        match decision {
            FilterDecision::Unchanged => EmitOutcome::Unchanged,
            FilterDecision::RateLimited => EmitOutcome::RateLimited,
            FilterDecision::Emit | FilterDecision::Refresh => {
                let outcome = self.emit(FrameKind::Probe, ClaimObservation::default(), 0);
                if matches!(outcome, EmitOutcome::Emitted) {
                    request.update(|request| request.record_probe_emitted(self.frame, self.now_ns));
                }
                outcome
            }
        }
    }

    #[inline(always)]
    fn claim(&self) -> EmitOutcome {
        if !self.watches(self.frame.spa) {
            return EmitOutcome::Filtered;
        }
        let key = self.key(self.frame.spa);
        let Some(state) = maps::claim(&key) else {
            return self.first_claim(&key);
        };
        let (claim, replies_to_probe) = self.match_request(&state.request().get());
        let settings = self.settings.get();
        let before = state.get();
        let previous = state.previous(before.is_duplicate_reply(&claim));
        let decision = match before.filter_step(&claim, replies_to_probe, &settings) {
            FilterStep::Decided(decision) => decision,
            FilterStep::NeedsToken(class) => {
                let rate = settings.change;
                let take = |bucket: &mut TokenBucket| bucket.take(rate, self.now_ns);
                FilterDecision::of_change(state.change_bucket(class).update(take))
            }
        };
        let outcome = match decision {
            FilterDecision::Unchanged => EmitOutcome::Unchanged,
            FilterDecision::RateLimited => EmitOutcome::RateLimited,
            FilterDecision::Emit => self.emit(FrameKind::Claim, previous.get(), claim.request_ns),
            FilterDecision::Refresh => {
                let event = self.event(FrameKind::Claim, previous.get(), claim.request_ns);
                submit(event, maps::refresh_ring())
            }
        };
        state.update(|state| state.record(claim, decision));
        if matches!(outcome, EmitOutcome::Emitted) {
            state.update(|state| state.record_emitted(claim));
        }
        outcome
    }

    /// Returns the claim with the request that it replies to, and whether the request was an ARP probe.
    #[inline(always)]
    fn match_request(&self, request: &RequestState) -> (ClaimObservation, bool) {
        let (request_ns, replies_to_probe) = request
            .match_reply(self.frame, self.now_ns)
            .unwrap_or((0, false));
        let direction = self.hook.direction();
        let claim = ClaimObservation::from_frame(self.frame, direction, self.now_ns, request_ns);
        (claim, replies_to_probe)
    }

    /// A claim on an address without state. Above the rate limit it is not stored, so that a flood of random
    /// addresses neither costs an insertion each nor evicts other addresses.
    #[inline(always)]
    fn first_claim(&self, key: &AddressKey) -> EmitOutcome {
        let Some(buckets) = maps::buckets() else {
            return EmitOutcome::RateLimited;
        };
        let rate = self.settings.get().new_address;
        if !buckets.update(|buckets| buckets.new_address.take(rate, self.now_ns)) {
            return EmitOutcome::RateLimited;
        }
        let request = maps::request(key).map_or_else(RequestState::default, MapValue::get);
        let (claim, _) = self.match_request(&request);
        let state = maps::insert_claim(key);
        if let Some(state) = state {
            state.request().set(request);
            state.update(|state| state.record(claim, FilterDecision::Emit));
        }
        let outcome = self.emit(FrameKind::Claim, ClaimObservation::NONE, claim.request_ns);
        if let Some(state) = state
            && matches!(outcome, EmitOutcome::Emitted)
        {
            state.update(|state| state.record_emitted(claim));
        }
        outcome
    }

    /// Records the request for the target address: in the state of its claims, if there are any.
    #[inline(always)]
    fn record_request(&self) -> Option<MapValue<RequestState>> {
        let key = self.key(self.frame.tpa);
        let known = match maps::claim(&key) {
            Some(state) => Some(state.request()),
            None => maps::request(&key),
        };
        if let Some(request) = known {
            request.update(|request| request.record(self.frame, self.now_ns));
            return Some(request);
        }
        maps::insert_request(&key, &RequestState::new(self.frame, self.now_ns));
        maps::request(&key)
    }

    #[inline(always)]
    fn watches(&self, address: [u8; 4]) -> bool {
        self.settings.get().filter == 0 || maps::filter_contains(address)
    }

    #[inline(always)]
    fn key(&self, address: [u8; 4]) -> AddressKey {
        AddressKey {
            ifindex: self.ifindex,
            vlan: self.frame.vlan(),
            address,
        }
    }

    /// Emits the frame as a change event.
    #[inline(always)]
    fn emit(&self, kind: FrameKind, previous: ClaimObservation, request_ns: u64) -> EmitOutcome {
        let Some(ring) = maps::change_ring() else {
            self.warn_of_missing_ring();
            return EmitOutcome::RingFull;
        };
        submit(self.event(kind, previous, request_ns), ring)
    }

    #[inline(always)]
    fn event(&self, kind: FrameKind, previous: ClaimObservation, request_ns: u64) -> ArpEvent {
        ArpEvent {
            ktime_ns: self.now_ns,
            request_ns,
            previous,
            ifindex: self.ifindex,
            kind: kind.number(),
            hook: self.hook.number(),
            frame: *self.frame,
        }
    }

    /// Logs that this CPU has no ring because it came online after the rings were created.
    #[inline(always)]
    fn warn_of_missing_ring(&self) {
        if let Some(buckets) = maps::buckets()
            && buckets.update(|buckets| buckets.log.take(LOG_RATE, self.now_ns))
        {
            warn!(
                self.ctx,
                "this CPU has no ring: its events are counted as ring_full"
            );
        }
    }
}

/// Submits an event to a ring. The kernel wakes user space if the ring was empty.
#[inline(always)]
fn submit(event: ArpEvent, ring: &Ring) -> EmitOutcome {
    let Some(mut entry) = ring.reserve(0) else {
        return EmitOutcome::RingFull;
    };
    entry.write(event);
    entry.submit(0);
    EmitOutcome::Emitted
}
