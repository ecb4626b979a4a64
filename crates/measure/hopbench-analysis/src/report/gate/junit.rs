//! JUnit's XML for CI systems: a guardrail in a cell is a test case. Regressed is a failure, and
//! inconclusive is skipped.

use maud::{PreEscaped, html};

use super::{cell, sentence};
use crate::{
    gate::{GateResult, Overall},
    text::xml,
};

/// Returns the findings as JUnit's XML.
pub fn junit(result: &GateResult) -> String {
    let tests = result.findings.len();
    let [failures, skipped] =
        [Overall::Regressed, Overall::Inconclusive].map(|kind| result.count(kind));
    xml(html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
        testsuites name="hopbench gate" tests=(tests) failures=(failures) errors="0"
            skipped=(skipped) {
            "\n  "
            testsuite name=(result.policy) tests=(tests) failures=(failures) errors="0"
                skipped=(skipped) {
                @for finding in &result.findings {
                    "\n    "
                    testcase classname=(finding.guardrail) name=(cell(finding)) {
                        @match finding.verdict.kind() {
                            Overall::Passed => {}
                            Overall::Regressed => { failure message=(sentence(finding)) {} }
                            Overall::Inconclusive => { skipped message=(sentence(finding)) {} }
                        }
                    }
                }
                "\n  "
            }
            "\n"
        }
        "\n"
    })
}
