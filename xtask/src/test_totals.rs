//! Sums up the results of the test binaries in the output of the test runner.

use std::fmt::{self, Display, Formatter};

/// The sum over all test binaries so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestTotals {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Tests of a binary that has not printed its result. If the binary crashes, they count as failed.
    pending: usize,
}

impl TestTotals {
    /// Processes one line of the runner's output; most lines are ignored.
    pub fn observe(&mut self, line: &str) {
        if let Some(announced) = announced(line) {
            self.fail_pending();
            self.pending = announced;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
            self.pending = 0;
        }
    }

    /// Counts the pending tests as failed, because the binary has ended.
    pub const fn fail_pending(&mut self) {
        self.failed += self.pending;
        self.pending = 0;
    }

    /// Whether there were tests and none of them failed.
    pub const fn is_success(&self) -> bool {
        self.failed + self.pending == 0 && self.passed > 0
    }
}

impl Display for TestTotals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed",
            self.passed,
            self.failed + self.pending
        )?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

/// The number in "running 3 tests".
fn announced(line: &str) -> Option<usize> {
    let (number, noun) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(noun, "test" | "tests").then(|| number.parse().ok())?
}

/// The number before `word` in "ok. 3 passed; 0 failed; 0 ignored; …".
fn count(result: &str, word: &str) -> usize {
    result
        .split([';', '.'])
        .filter_map(|part| part.trim().split_once(' '))
        .find_map(|(number, rest)| (rest == word).then(|| number.parse().ok())?)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_totals(output: &str) -> TestTotals {
        let mut test_totals = TestTotals::default();
        output.lines().for_each(|line| test_totals.observe(line));
        test_totals
    }

    const PASSED: &str = "\
running 2 tests
test a ... ok
test b ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let failed = "\
running 3 tests
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.02s
";
        let test_totals = test_totals(&[PASSED, failed].concat());
        assert_eq!(test_totals.to_string(), "3 passed, 1 failed, 1 ignored");
        assert!(!test_totals.is_success());
    }

    #[test]
    fn all_passed_is_success() {
        let test_totals = test_totals(PASSED);
        assert_eq!(test_totals.to_string(), "2 passed, 0 failed");
        assert!(test_totals.is_success());
    }

    #[test]
    fn tests_of_a_crashed_binary_count_as_failed() {
        let died = "running 5 tests\ntest a ... ok\n";
        for output in [[PASSED, died].concat(), [died, PASSED].concat()] {
            let test_totals = test_totals(&output);
            assert_eq!(test_totals.to_string(), "2 passed, 5 failed");
            assert!(!test_totals.is_success());
        }
    }

    #[test]
    fn no_tests_at_all_is_no_success() {
        assert!(!test_totals("").is_success());
    }
}
