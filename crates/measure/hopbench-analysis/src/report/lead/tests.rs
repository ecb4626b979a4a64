//! Goal: a sentence says what is known, at a load that is chosen by a rule, and no more. Method:
//! runs of scripted trials in six blocks.

use super::*;
use crate::{
    record::{Failure, FailureKind, OpenLoop, Outcome, Protocol, Source, Trial, Warning},
    report::tests,
    summary::Summary,
};

/// Returns six blocks of the reference at 10,000/s with a p99 of 100 µs, and of a path whose
/// figures `of` gives by concurrency and block.
fn trials(loads: &[u32], of: impl Fn(u32, u32) -> (u64, u64)) -> Vec<Trial> {
    let mut trials = Vec::new();
    for block in 1..=6 {
        for load in loads {
            trials.push(tests::trial("plain", *load, block, 0, 10_000, 100));
            let (rps, p99_us) = of(*load, block);
            trials.push(tests::trial("fast", *load, block, 0, rps, p99_us));
        }
    }
    trials
}

fn said(trials: &[Trial]) -> Vec<String> {
    said_of(tests::manifest(), trials)
}

fn said_of(mut manifest: Manifest, trials: &[Trial]) -> Vec<String> {
    manifest
        .paths
        .retain(|path| ["plain", "fast"].contains(&path.name.as_str()));
    let summary = Summary::new(&manifest, trials).expect("readable");
    let sentences = sentences(&manifest, &summary.scenarios[0]);
    // It says how it was asked if a path was asked otherwise.
    let beginnings = [
        "plain 1.0: the reference, ",
        "plain 1.0, asked by HTTP/1.1: the reference, ",
    ];
    let is_other = sentences[1..].iter().any(|said| said.contains("asked by"));
    let wanted = beginnings[usize::from(is_other)];
    assert!(sentences[0].starts_with(wanted), "{sentences:?}");
    sentences[1..].to_vec()
}

#[test]
fn a_path_is_said_to_be_asked_otherwise() {
    let trials = trials(&[1], |_, _| (2_800, 2_300));
    for (tls, protocol, wanted) in [
        (false, Protocol::Http1, "fast 1.0: 28 % "),
        (
            true,
            Protocol::Http1,
            "fast 1.0, asked by HTTP/1.1 over TLS: ",
        ),
        (
            true,
            Protocol::H2,
            "fast 1.0, asked by HTTP/2 over TLS: 28 % ",
        ),
        (
            false,
            Protocol::H2,
            "fast 1.0, asked by HTTP/2 without TLS: ",
        ),
    ] {
        let mut manifest = tests::manifest();
        manifest.paths[1].front = FrontProtocol { tls, protocol };
        let said = said_of(manifest, &trials);
        assert!(said[0].starts_with(wanted), "{said:?}");
    }
}

#[test]
fn the_highest_load_leads_whatever_was_found_there() {
    let noise = |block: u32| [9_000, 9_400, 9_800, 10_300, 10_900, 11_500][block as usize - 1];
    let trials = trials(&[1, 64], |load, block| match load {
        64 => (2_800, 2_300),
        _ => (noise(block), 100),
    });
    // CPU: 20 µs a request with the host, 10 µs without.
    let wanted =
        "fast 1.0: 28 % of plain at c=64, +10 µs CPU a request, p99 +2.2 ms; can't tell at c=1";
    assert_eq!(said(&trials), [wanted]);

    let other = self::trials(&[1, 64], |load, block| match load {
        1 => (2_800, 2_300),
        _ => (noise(block), 100),
    });
    let said = said(&other);
    assert!(
        said[0].starts_with("fast 1.0: can't tell from plain (90 %–115 %) at c=64, "),
        "{said:?}"
    );
}

#[test]
fn a_path_of_which_all_failed_says_so_and_how() {
    let mut trials = trials(&[8], |_, _| (5_000, 300));
    for trial in trials
        .iter_mut()
        .filter(|it| it.planned.cell.path == "fast")
    {
        trial.outcome = Outcome::Failed(Failure {
            source: Source::Subject,
            kind: FailureKind::WrongAnswer,
            cause: "another body".to_owned(),
            log: Vec::new(),
        });
        trial.load = None;
    }
    assert_eq!(
        said(&trials),
        ["fast 1.0: 6 of 6 trials failed (wrong answer) at c=8"]
    );
}

#[test]
fn a_path_without_a_trial_or_a_reference_is_not_left_out() {
    let mut trials = trials(&[8, 64], |_, _| (5_000, 300));
    trials.retain(|trial| trial.planned.cell.path == "plain");
    assert_eq!(said(&trials), ["fast: not measured"]);

    let mut trials = self::trials(&[8, 64], |_, _| (5_000, 300));
    trials.retain(|trial| {
        let cell = &trial.planned.cell;
        (cell.path == "fast") == (cell.concurrency == 8)
    });
    let expected = "fast 1.0: measured, but not beside the reference at c=8";
    assert_eq!(said(&trials), [expected]);
}

#[test]
fn what_failed_at_the_highest_load_is_named() {
    let mut trials = trials(&[8, 64], |_, _| (5_000, 300));
    for trial in &mut trials {
        if trial.planned.cell.path == "fast" && trial.planned.cell.concurrency == 64 {
            trial.outcome = Outcome::Failed(Failure {
                source: Source::Subject,
                kind: FailureKind::Crash,
                cause: "gone".to_owned(),
                log: Vec::new(),
            });
            trial.load = None;
        }
    }
    let said = said(&trials);
    assert!(said[0].contains("50 % of plain at c=8"), "{said:?}");
    assert!(
        said[0].ends_with("; 6 of 6 trials failed (crash) at c=64"),
        "{said:?}"
    );
}

#[test]
fn few_blocks_are_no_answer() {
    let mut trials = trials(&[8], |_, _| (5_000, 300));
    trials.retain(|trial| trial.planned.block <= 2);
    let said = said(&trials);
    assert!(
        said[0].ends_with("too few blocks to be sure (2)"),
        "{said:?}"
    );
}

#[test]
fn at_fixed_rates_the_highest_rate_that_is_held_leads() {
    let mut trials = Vec::new();
    for block in 1..=6 {
        for (path, rate, p99_us, dropped) in [
            ("plain", 3_000, 100, 0),
            ("plain", 5_000, 150, 0),
            ("fast", 3_000, 400, 0),
            ("fast", 5_000, 90_000, 500),
        ] {
            let mut trial = tests::trial(path, 8, block, 0, u64::from(rate) - dropped, p99_us);
            trial.planned.cell.rate_rps = Some(rate);
            if let Some(load) = &mut trial.load {
                load.open_loop = Some(OpenLoop {
                    scheduled: rate.into(),
                    dropped,
                    ..OpenLoop::default()
                });
            }
            trials.push(trial);
        }
    }
    let said = said(&trials);
    let wanted = "fast 1.0: at 3,000/s, c=8, +10 µs CPU a request and p99 +0.30 ms over plain; at \
                  c=8, could not hold 5,000/s (3,000 of 30,000 never sent)";
    assert_eq!(said, [wanted]);
}

#[test]
fn an_endpoint_of_which_no_rate_is_held_says_so() {
    let mut trials = Vec::new();
    for block in 1..=6 {
        for (path, endpoint, dropped) in [
            ("plain", "/small", 0),
            ("fast", "/small", 0),
            ("plain", "/large", 0),
            ("fast", "/large", 284),
        ] {
            let mut trial = tests::trial(path, 64, block, 0, 2_000 - dropped, 300);
            trial.planned.cell.rate_rps = Some(2_000);
            endpoint.clone_into(&mut trial.planned.cell.endpoint);
            let load = trial.load.as_mut().expect("loaded");
            load.open_loop = Some(OpenLoop {
                scheduled: 2_000,
                dropped,
                ..OpenLoop::default()
            });
            trials.push(trial);
        }
    }
    let mut manifest = tests::manifest();
    manifest.scenarios[0].endpoints.push("/large".to_owned());
    let wanted = "fast 1.0: at 2,000/s on /small, c=64, +10 µs CPU a request over plain, p99 \
                  equal; on /large, c=64, could not hold 2,000/s (1,704 of 12,000 never sent)";
    assert_eq!(said_of(manifest, &trials), [wanted]);
}

#[test]
fn a_p99_of_the_answers_that_came_is_no_answer() {
    let mut trials = trials(&[64], |_, _| (5_000, 50));
    assert!(
        said(&trials)[0].contains("p99 −0.050 ms"),
        "{:?}",
        said(&trials)
    );
    let table = |trials: &[Trial]| {
        let manifest = tests::manifest();
        let summary = Summary::new(&manifest, trials).expect("readable");
        let section = section(&manifest, &summary.scenarios[0]).expect("a path");
        section.sheet.text(crate::report::sheet::Medium::Markdown)
    };
    assert!(table(&trials).contains("−0.050"), "{}", table(&trials));
    // One trial of the path runs into a time-out.
    let of_path = trials.iter_mut().find(|it| it.planned.cell.path == "fast");
    of_path.expect("there").outcome = Outcome::Failed(Failure {
        source: Source::Subject,
        kind: FailureKind::TimeOut,
        cause: "late".to_owned(),
        log: Vec::new(),
    });
    let wanted = "fast 1.0: 50 % of plain at c=64, +10 µs CPU a request, 1 of 6 trials failed \
                  (time-out)";
    assert_eq!(said(&trials), [wanted]);
    assert!(!table(&trials).contains("p99 (ms)"), "{}", table(&trials));
}

#[test]
fn missing_cpu_figures_have_a_reason() {
    let mut trials = trials(&[64], |_, _| (5_000, 300));
    for trial in &mut trials {
        if trial.planned.cell.path == "fast" {
            trial.warnings = vec![Warning::Strayed {
                process: "worker (7)".to_owned(),
            }];
        }
    }
    let wanted = "fast 1.0: 50 % of plain at c=64, no CPU figures, because 'worker (7)' left its \
                  process group, p99 +0.20 ms";
    assert_eq!(said(&trials), [wanted]);
}

#[test]
fn the_table_has_an_interval_and_no_estimate_that_means_nothing() {
    let manifest = tests::manifest();
    let trials = trials(&[64], |_, block| match block % 2 {
        0 => (9_000, 2_300 + u64::from(block)),
        _ => (11_500, 2_300),
    });
    let summary = Summary::new(&manifest, &trials).expect("readable");
    let section = section(&manifest, &summary.scenarios[0]).expect("a path");
    let text = section.sheet.text(crate::report::sheet::Medium::Markdown);
    assert!(text.contains("| can't tell (90 %–115 %) |"), "{text}");
    assert!(text.contains("+2.2"), "{text}");
    // Nothing is unanswered, so there is no column for it.
    assert!(!text.contains("Not answered"), "{text}");
}

#[test]
fn a_difference_has_two_digits_and_a_sign() {
    let cases = [
        (25.04, "+25"),
        (2.24, "+2.2"),
        (0.3, "+0.30"),
        (-0.012, "−0.012"),
        (1_234.0, "+1234"),
        (0.0, "0"),
        (-0.000_001, "0"),
    ];
    for (value, wanted) in cases {
        assert_eq!(signed(value), wanted);
    }
}
