//! JUnit's XML for CI systems: a guardrail in a cell is a test case. Regressed is a failure, and
//! inconclusive is skipped.

use std::fmt::Write;

use super::{cell, sentence};
use crate::gate::{GateResult, Overall};

/// Returns the findings as JUnit's XML.
pub fn junit(result: &GateResult) -> String {
    let tests = result.findings.len();
    let [failures, skipped] =
        [Overall::Regressed, Overall::Inconclusive].map(|kind| result.count(kind));
    let counts =
        format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"hopbench gate\" {counts}>\n\
         \x20 <testsuite name=\"{}\" {counts}>\n",
        escape(&result.policy)
    );
    for finding in &result.findings {
        write!(
            out,
            "    <testcase classname=\"{}\" name=\"{}\"",
            escape(&finding.guardrail),
            escape(&cell(finding)),
        )
        .expect("a string grows");
        let element = match finding.verdict.kind() {
            Overall::Passed => {
                out += "/>\n";
                continue;
            }
            Overall::Regressed => "failure",
            Overall::Inconclusive => "skipped",
        };
        let message = escape(&sentence(finding));
        writeln!(
            out,
            ">\n      <{element} message=\"{message}\"/>\n    </testcase>"
        )
        .expect("a string grows");
    }
    out + "  </testsuite>\n</testsuites>\n"
}

/// Escapes text for an attribute. A replacement character stands for what XML 1.0 cannot say.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            '\t' | '\n' | '\r' => {
                write!(out, "&#{};", u32::from(letter)).expect("a string grows");
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}
