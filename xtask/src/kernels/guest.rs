//! A guest under QEMU.

#![allow(
    clippy::print_stdout,
    reason = "the output of the tests in the guest is the result of the command"
)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::image::Image;
use crate::programs;

/// Several times the duration on a slow and busy machine.
const DEADLINE: Duration = Duration::from_mins(10);

/// A running guest; it is killed on drop.
pub struct Guest {
    qemu: Child,
    console: Receiver<String>,
    deadline: Instant,
}

impl Guest {
    /// Starts a guest.
    pub fn start(image: &Image) -> Result<Self> {
        let mut command = programs::command("qemu-system-x86_64")?;
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            // Two CPUs, so that the rings of several CPUs and the order between them are tested.
            .args(["-smp", "2", "-m", "1024"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.tree)
            // The guest exits on a panic.
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
        // Three network cards on one hub, without boot code. The third one strips VLAN tags from frames.
        for (card, model) in [
            ("left", "virtio-net-pci"),
            ("right", "virtio-net-pci"),
            ("stripping", "vmxnet3"),
        ] {
            command
                .args(["-netdev", &format!("hubport,hubid=0,id={card}")])
                .args(["-device", &format!("{model},netdev={card},romfile=")]);
        }
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(
                "cannot run qemu-system-x86_64: run `cargo xtask kernels`, which installs it",
            )?;
        let stdout = qemu.stdout.take().context("QEMU has no output")?;
        Ok(Self {
            qemu,
            console: lines_of(stdout),
            deadline: Instant::now() + DEADLINE,
        })
    }

    /// Prints the console and passes each line to `observe` until the guest ends.
    pub fn run(mut self, mut observe: impl FnMut(&str)) -> Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.console.recv_timeout(left) {
                Ok(line) => {
                    println!("{line}");
                    observe(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the guest hangs: it did not end within {DEADLINE:?}, its last words are above"
                    )
                }
            }
        }
        let status = self.qemu.wait().context("cannot wait for QEMU")?;
        ensure!(status.success(), "QEMU failed ({status})");
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The guest may have exited by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The lines of the console, with CRLF line endings.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
