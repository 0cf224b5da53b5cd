//! The status lines of a guest between the output of the tests.

/// The prefix of a status line; `init.sh` prints it.
const PREFIX: &str = "guest: ";

/// The results of the test binaries so far.
#[derive(Debug, Default)]
pub struct Console {
    has_started: bool,
    succeeded: usize,
    failed: usize,
}

impl Console {
    /// Processes one line of the console.
    pub fn observe(&mut self, line: &str) {
        self.has_started |= line.starts_with("running ") || line.starts_with(PREFIX);
        let Some(event) = line.strip_prefix(PREFIX) else {
            return;
        };
        if event.ends_with(" ended with 0") {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Whether a test binary, or a message of the init process, was observed.
    pub const fn has_started(&self) -> bool {
        self.has_started
    }

    /// Whether this many test binaries ran and all of them succeeded.
    pub const fn all_well(&self, binaries: usize) -> bool {
        self.failed == 0 && self.succeeded == binaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for line in lines {
            console.observe(line);
        }
        console
    }

    #[test]
    fn every_test_binary_must_succeed() {
        let both = [
            "guest: a ended with 0",
            "test x ... ok",
            "guest: b ended with 0",
        ];
        assert!(console(&both).all_well(2));
        assert!(!console(&both[..2]).all_well(2));
        let failed = ["guest: a ended with 0", "guest: b ended with 101"];
        assert!(!console(&failed).all_well(2));
    }

    #[test]
    fn a_kernel_that_crashes_at_boot_has_not_started_the_tests() {
        let crash = "[    3.109515] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI";
        assert!(!console(&[crash]).has_started());
        assert!(console(&["running 26 tests", crash]).has_started());
        assert!(console(&["guest: no module veth"]).has_started());
    }

    #[test]
    fn a_guest_without_a_module_fails() {
        let lines = ["guest: no module veth", "guest: a ended with 0"];
        assert!(!console(&lines).all_well(1));
    }
}
