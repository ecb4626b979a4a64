use proptest::prelude::*;

use super::External;

const PROJECT: &str = r#"{
  "schema": 1, "engine": "locust", "engine_version": "2.47.0", "scenario": "s",
  "target": "http://x", "generators": 2, "duration_s": 8.0,
  "requests": 1600, "failures": 3,
  "rate_rps": 200.0,
  "p50_us": 900, "p95_us": 1500,
  "p99_us": 2100, "max_us": 9000.5
}"#;

const CSV: &str = "\
Type,Name,Request Count,Failure Count,Median Response Time,Requests/s,50%,95%,99%,100%
GET,\"a \"\"b\"\",\nc\",10,0,1,5.0,1,2,3,4
,Aggregated,20,1,1,10.5,1,2,3,44.5
";

const K6_SUMMARY: &str = r#"{"metrics": {
  "http_reqs": {"count": 100, "rate": 10.5},
  "http_req_failed": {"passes": 2, "fails": 98, "value": 0.02},
  "http_req_duration": {"avg": 1.0, "med": 0.9, "max": 7, "p(90)": 1.5, "p(95)": 2.5}
}}"#;

const K6_HANDLED: &str = r#"{"metrics": {
  "http_reqs": {"type": "counter", "values": {"count": 100, "rate": 10.5}},
  "http_req_duration": {"values": {"p(50)": 0.9, "p(95)": 2.5, "p(99)": 3, "max": 7}}
}, "state": {"testRunDurationMs": 9500.0}}"#;

fn read(text: &str) -> Result<External, String> {
    External::read("file", text).map_err(|error| error.to_string())
}

#[test]
fn figures_of_every_form_are_read() {
    let project = read(PROJECT).expect("figures");
    assert_eq!(project.engine_name(), "locust 2.47.0");
    assert_eq!((project.requests, project.failures), (1600, Some(3)));
    assert_eq!(
        (project.p99_us, project.max_us),
        (Some(2100.0), Some(9000.5))
    );

    let csv = read(CSV).expect("figures");
    assert_eq!((csv.requests, csv.failures), (20, Some(1)));
    assert_eq!((csv.rate_rps, csv.max_us), (Some(10.5), Some(44_500.0)));
    let same = read(&CSV.replace('\n', "\r\n")).expect("figures");
    assert_eq!(same, csv);

    let summary = read(K6_SUMMARY).expect("figures");
    assert_eq!((summary.requests, summary.failures), (100, Some(2)));
    assert_eq!((summary.p50_us, summary.p99_us), (Some(900.0), None));

    let handled = read(K6_HANDLED).expect("figures");
    assert_eq!(
        (handled.p50_us, handled.p99_us),
        (Some(900.0), Some(3000.0))
    );
    assert_eq!((handled.failures, handled.duration_s), (None, Some(9.5)));
}

/// Replaces a part of a text that is there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn assert_named<const N: usize>(cases: [(String, &str); N]) {
    for (text, expected) in cases {
        let error = read(&text).expect_err(expected);
        assert!(error.contains(expected), "'{expected}' is not in '{error}'");
    }
}

#[test]
fn what_is_wrong_with_a_project_s_figures_is_named_with_its_line_and_field() {
    assert_named([
        (String::new(), "line 1: expected 'hopbench-external.json'"),
        (
            "a,b\n".to_owned(),
            "line 1: expected 'hopbench-external.json'",
        ),
        ("{}".to_owned(), "line 1: expected the field 'engine'"),
        ("{\n\"engine\":\n".to_owned(), "line 3: EOF"),
        (
            replaced(PROJECT, "1600", "\"x\""),
            "line 4: 'requests': expected a number",
        ),
        (
            replaced(PROJECT, "1600", "1.5"),
            "line 4: 'requests': expected a whole number",
        ),
        (
            replaced(PROJECT, "1600", "2"),
            "'failures' is 3, but there were only 2 requests",
        ),
        (
            replaced(PROJECT, "200.0", "-1"),
            "line 5: 'rate_rps': expected a number from 0",
        ),
        (
            replaced(PROJECT, "200.0", "null"),
            "line 5: 'rate_rps': expected a number, found none",
        ),
        (
            replaced(PROJECT, "\"locust\"", "7"),
            "line 2: 'engine': expected a text, found 7",
        ),
        (
            replaced(PROJECT, ": 1,", ": 2,"),
            "line 2: 'schema': expected 1",
        ),
        (
            replaced(PROJECT, "1500", "2500"),
            "'p99_us' is 2100, expected at least 'p95_us'",
        ),
        (
            replaced(PROJECT, "\"s\"", &format!("\"{}\"", "s".repeat(501))),
            "is too long",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_an_engine_s_own_figures_is_named_with_its_line_and_field() {
    assert_named([
        (
            replaced(CSV, "20,1,", "x,1,"),
            "line 4: 'Request Count': expected a number",
        ),
        (
            replaced(CSV, "10.5", "N/A"),
            "line 4: 'Requests/s': expected a number, found none",
        ),
        (
            replaced(CSV, "Aggregated", "x"),
            "'Name': expected a row 'Aggregated'",
        ),
        (replaced(CSV, "c\"", "c"), "line 2: expected a '\"'"),
        (
            replaced(K6_SUMMARY, "10.5", "[]"),
            "line 2: 'metrics.http_reqs.rate': expected",
        ),
        (
            replaced(K6_SUMMARY, "http_reqs", "x"),
            "'metrics.http_reqs.count': expected a whole",
        ),
        (
            replaced(K6_HANDLED, "3,", "1e300,"),
            "line 3: 'metrics.http_req_duration.values.p(99)'",
        ),
    ]);
}

#[test]
fn kept_figures_are_checked_again() {
    let figures = read(PROJECT).expect("figures");
    let kept = serde_json::to_string_pretty(&[&figures]).expect("JSON");
    assert_eq!(External::read_kept(&kept), Ok(vec![figures]));
    let broken = kept.replace("2100.0", "1.0");
    let error = External::read_kept(&broken).expect_err("not ordered");
    assert!(
        error.to_string().starts_with("figures 1: 'p99_us'"),
        "{error}"
    );
    assert!(External::read_kept("[{}]").is_err());
}

proptest! {
    /// Whatever a file says, there are figures or an error.
    #[test]
    fn no_file_is_too_odd(
        start in 0_usize..4,
        cut in 0_usize..400,
        piece in "[,\"\\n{}:a0é-]{0,20}",
    ) {
        let text = [PROJECT, CSV, K6_SUMMARY, K6_HANDLED][start];
        let cut = cut.min(text.len());
        let odd = format!("{}{piece}{}", &text[..cut], &text[cut..]);
        let _ = External::read("file", &odd);
        let _ = External::read("file", &format!("{}{piece}", &text[..cut]));
        let _ = External::read_kept(&odd);
    }
}
