//! What one observation costs when 100 000 bindings are known.
//!
//! `cargo bench -p probe-user --bench detect`

mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use probe_detect::Detector;
use probe_model::Timestamp;
use support::{announcement, at, detector, observe, reply_by};

const BINDINGS: u32 = 100_000;

/// From one binding to the next: no factor in common with their number, so that each is used, and far
/// enough that no cache foresees it.
const STEP: u32 = 38_197;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(
        &mut criterion,
        "a known owner claims again",
        |detector, number, now| {
            observe(detector, announcement(now, number, 0), &mut Vec::new());
        },
    );
    bench(
        &mut criterion,
        "another owner takes over",
        |detector, number, now| {
            let owner = 1 + (now.0 / 1_000_000_000 % 250) as u8;
            observe(detector, announcement(now, number, owner), &mut Vec::new());
        },
    );
    bench(
        &mut criterion,
        "two owners reply_by one request",
        |detector, number, now| {
            observe(detector, reply_by(now, number, 0, now), &mut Vec::new());
            observe(detector, reply_by(now, number, 1, now), &mut Vec::new());
        },
    );
    bench(
        &mut criterion,
        "a new address takes the place of another",
        |detector, number, now| {
            // Another network each time round.
            let round = (now.0 / 1_000_000_000 % 64) as u32 + 1;
            observe(
                detector,
                announcement(now, number + round * BINDINGS, 0),
                &mut Vec::new(),
            );
        },
    );
    criterion.final_summary();
}

/// Does something to one binding after the other, all over the table.
fn bench(
    criterion: &mut Criterion,
    name: &str,
    mut act: impl FnMut(&mut Detector, u32, Timestamp),
) {
    let mut detector = detector(BINDINGS);
    let mut number = 0;
    let mut now = at(BINDINGS);
    let mut group = criterion.benchmark_group("observe");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            // A full round takes ten seconds: what is due becomes due as it does at 10 000 changes a second.
            now = now + Duration::from_micros(100);
            number = (number + STEP) % BINDINGS;
            act(&mut detector, number, now);
        });
    });
}
