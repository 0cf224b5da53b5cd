//! What a guest says of itself, between the lines of the tests.

/// The beginning of those lines; `init.sh` writes them.
const MARK: &str = "guest: ";

/// How the test binaries ended, as far as the guest has said.
#[derive(Debug, Default)]
pub struct Console {
    succeeded: usize,
    failed: usize,
}

impl Console {
    /// Takes in one line of the console.
    pub fn observe(&mut self, line: &str) {
        let Some(news) = line.strip_prefix(MARK) else {
            return;
        };
        if news.ends_with(" ended with 0") {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Whether so many test binaries ran to their end, and each said that all is well.
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
    fn every_binary_must_end_well() {
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
    fn a_guest_that_lacks_something_is_not_well() {
        let lines = ["guest: no module veth", "guest: a ended with 0"];
        assert!(!console(&lines).all_well(1));
    }
}
