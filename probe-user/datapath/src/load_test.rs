//! Running a program on one frame without a network: `BPF_PROG_TEST_RUN`, for tests and benchmarks.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use probe_common::event::Hook;

use super::{Kernel, KernelError, attach::program};

/// The interface that trial frames seem to arrive on: the loopback of the network namespace.
pub const TRIAL_INTERFACE: u32 = 1;

/// The shortest frame that the kernel runs the program of a hook on: an Ethernet header, and for a socket
/// buffer something in it (`net/bpf/test_run.c`).
pub const fn min_test_frame(hook: Hook) -> usize {
    match hook {
        Hook::Xdp => 14,
        Hook::TcIngress | Hook::TcEgress => 15,
    }
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Mean time of a run.
    pub duration: Duration,
}

impl TestRun {
    /// The only verdict that a hook may return: the frame goes on its way.
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
    /// Runs the program of `hook` on `frame`, `repeat` times in a row.
    ///
    /// # Errors
    ///
    /// The kernel refuses frames below [`min_test_frame`] and above a page.
    pub fn test_run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        repeat: u32,
    ) -> Result<TestRun, KernelError> {
        self.counters.register(TRIAL_INTERFACE, hook.direction())?;
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
