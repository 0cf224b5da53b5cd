//! The status lines of a guest between the output of the tests.

/// The prefix of a status line; `init.sh` prints it.
const PREFIX: &str = "guest: ";

/// The results of the test binaries so far.
#[derive(Debug, Default)]
pub struct Console {
    succeeded: usize,
    failed: usize,
}

impl Console {
    /// Processes one line of the console.
    pub fn observe(&mut self, line: &str) {
        let Some(event) = line.strip_prefix(PREFIX) else {
            return;
        };
        if event.ends_with(" ended with 0") {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
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
    fn a_guest_without_a_module_fails() {
        let lines = ["guest: no module veth", "guest: a ended with 0"];
        assert!(!console(&lines).all_well(1));
    }
}
