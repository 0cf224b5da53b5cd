//! Runs a program on one frame without a network (`BPF_PROG_TEST_RUN`), for tests and benchmarks.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use probe_common::event::Hook;

use super::{Kernel, KernelError, attach::program};

/// The ingress interface of test frames: the loopback interface of the network namespace.
pub const TEST_RUN_INTERFACE: u32 = 1;

/// The minimum length of a test frame in bytes: an Ethernet header, and at TC hooks a payload (`net/bpf/test_run.c`).
pub const fn min_test_frame(hook: Hook) -> usize {
    match hook {
        Hook::Xdp => 14,
        Hook::TcIngress | Hook::TcEgress => 15,
    }
}

/// The result of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The return value of the program.
    pub verdict: i32,
    /// The frame after the run.
    pub frame: Vec<u8>,
    /// The mean duration of a run.
    pub duration: Duration,
}

impl TestRun {
    /// The return value with which a hook passes the frame: the only one that our programs use.
    pub const fn pass_verdict(hook: Hook) -> i32 {
        match hook {
            // XDP_PASS
            Hook::Xdp => 2,
            // TC_ACT_UNSPEC, TCX_NEXT
            Hook::TcIngress | Hook::TcEgress => -1,
        }
    }
}

impl Kernel {
    /// Runs the program of `hook` on `frame`, `repeat` times.
    ///
    /// # Errors
    ///
    /// [`KernelError::TestRun`] for frames shorter than [`min_test_frame`] or longer than a page.
    pub fn test_run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        repeat: u32,
    ) -> Result<TestRun, KernelError> {
        self.counters
            .register(TEST_RUN_INTERFACE, hook.direction())?;
        let mut after = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            repeat,
            ..TestRunOptions::default()
        };
        let name = hook.program();
        let result = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, name)?.test_run(options),
            Hook::TcIngress | Hook::TcEgress => {
                program::<SchedClassifier>(&mut self.ebpf, name)?.test_run(options)
            }
        }
        .map_err(|source| KernelError::TestRun {
            name,
            source: Box::new(source),
        })?;
        after.resize(result.data_size_out as usize, 0);
        Ok(TestRun {
            verdict: result.return_value.cast_signed(),
            frame: after,
            duration: result.duration,
        })
    }
}
