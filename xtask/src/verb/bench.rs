//! `cargo xtask bench`: measures the release build with the benchmarks of `tests/benches/probe`.

use std::env::consts::ARCH;

use anyhow::{Result, ensure};

use crate::{
    ebpf::{self, Host, Toolchain},
    host,
    programs::{self, Use},
    step::{self, slow_step, step},
    toolchain,
    verb::build,
};

/// The object with the BPF programs of the benchmarks.
const OBJECT: &str = "probe-ebpf-bench";

pub fn run(names: &[String]) -> Result<()> {
    ensure!(
        host::is_root(),
        "the benchmarks make network namespaces and load eBPF programs, which needs root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask bench`"
    );
    let toolchain = toolchain::ensure()?;
    programs::ensure(&[Use::Bench])?;
    build::release()?;
    slow_step("benchmark programs", || kernel_side(&toolchain))?;
    let target = host().bpf_target();
    let object = ebpf::target_dir(host::workspace())
        .join(target)
        .join("release")
        .join(OBJECT);
    step("benchmarks", || {
        step::run(
            host::cargo()
                .args(["bench", "--package=probe-tests", "--bench=probe", "--"])
                .args(names)
                .env("PROBE_BENCH_OBJECT", object),
        )
    })
}

fn host() -> Host<'static> {
    Host {
        arch: ARCH,
        big_endian: cfg!(target_endian = "big"),
    }
}

fn kernel_side(toolchain: &Toolchain) -> Result<()> {
    let workspace = host::workspace();
    step::run(
        toolchain
            .command(
                &toolchain.cargo,
                "build",
                host(),
                &ebpf::target_dir(workspace),
            )
            .current_dir(workspace)
            .args(["--features=bench", "--bin", OBJECT]),
    )
}
