//! How the tests went, read from what the runner left.

/// What a test prints first when it cannot run here.
const SKIPPED: &str = "skipped: ";

/// Parts of the names of test programs that start real guests.
const REAL_GUEST_SUITES: [&str; 2] = ["e2e", "real"];

/// How the tests went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub passed: usize,
    pub failed: usize,
    /// The lines that say why, one for each test that could not run.
    pub skipped: Vec<String>,
    /// Tests of suites that start real guests, and how many of them could not run.
    real_guest_tests: usize,
    real_guest_skipped: usize,
}

impl Report {
    /// Reads a JUnit file as nextest writes it: suites of cases, each with its output.
    pub(super) fn from_junit(xml: &str) -> Self {
        let mut report = Self::default();
        for suite in xml.split("<testsuite ").skip(1) {
            let name = attribute(suite, "name").unwrap_or_default();
            let real_guest = REAL_GUEST_SUITES.iter().any(|part| name.contains(part));
            for case in suite.split("<testcase ").skip(1) {
                let skipped = skip_line(case);
                report.real_guest_tests += usize::from(real_guest);
                report.real_guest_skipped += usize::from(real_guest && skipped.is_some());
                if case.contains("<failure") || case.contains("<error") {
                    report.failed += 1;
                } else if let Some(line) = skipped {
                    report.skipped.push(line);
                } else {
                    report.passed += 1;
                }
            }
        }
        report
    }

    /// Reads what `cargo test -- --show-output` printed. It does not tell suites apart well enough to
    /// count real guests, so any skipped test counts as one.
    pub(super) fn from_cargo_test(text: &str) -> Self {
        let mut report = Self {
            skipped: skip_lines(text).collect(),
            ..Self::default()
        };
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("test result: "))
        {
            report.passed += number_before(line, " passed");
            report.failed += number_before(line, " failed");
        }
        report.passed = report.passed.saturating_sub(report.skipped.len());
        report.real_guest_tests = report.skipped.len() + usize::from(report.skipped.is_empty());
        report.real_guest_skipped = report.skipped.len();
        report
    }

    /// Whether at least one test that needs a guest had one.
    pub(super) fn real_guest_ran(&self) -> bool {
        self.real_guest_tests > self.real_guest_skipped
    }

    /// The sum in one line.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skipped.len()
        )
    }
}

fn skip_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter_map(|line| line.find(SKIPPED).map(|at| line[at..].to_owned()))
}

/// The first skip line of a case; output in XML begins on the line of its tag.
fn skip_line(case: &str) -> Option<String> {
    let line = skip_lines(case).next()?;
    Some(line.split("</").next().unwrap_or(&line).to_owned())
}

fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let tag = element.split('>').next()?;
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    value.split('"').next()
}

fn number_before(line: &str, word: &str) -> usize {
    let before = line.split(word).next().unwrap_or_default();
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<testsuites name="nextest-run" tests="4">
    <testsuite name="model" tests="2">
        <testcase name="a" classname="model" time="0.1"></testcase>
        <testcase name="b" classname="model"><failure type="test failure">x</failure></testcase>
    </testsuite>
    <testsuite name="e2e::lifecycle" tests="2">
        <testcase name="c" classname="e2e::lifecycle"><system-out>
running 1 test
skipped: no qemu
</system-out></testcase>
        <testcase name="d"><system-out>skipped: no root</system-out></testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn cases_of_a_junit_file_are_counted_and_skip_lines_kept() {
        let report = Report::from_junit(JUNIT);
        assert_eq!(report.summary(), "1 passed, 1 failed, 2 skipped");
        assert_eq!(report.skipped, ["skipped: no qemu", "skipped: no root"]);
        assert!(!report.real_guest_ran());
    }

    #[test]
    fn one_real_guest_is_enough() {
        let ran = JUNIT.replace("skipped: no root", "fine");
        assert!(Report::from_junit(&ran).real_guest_ran());
    }

    #[test]
    fn output_of_cargo_test_is_summed_up() {
        let text = "test a ... ok\nskipped: no qemu\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        let report = Report::from_cargo_test(text);
        assert_eq!(report.summary(), "4 passed, 1 failed, 1 skipped");
    }
}
