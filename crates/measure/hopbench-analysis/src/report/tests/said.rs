//! Goal: the sentences of a report are true of what was measured, and no longer than they must be.
//! Method: made-up trials in which one thing is special.

use super::*;
use crate::report::sentences;

/// Makes six trials of which each compared 1,000 bodies of 10,000.
fn compared() -> Vec<Trial> {
    let all = 1..=6;
    let of = |block| {
        let mut trial = trial("fast", 8, block, 0, 10_000, 200);
        trial.load.as_mut().expect("loaded").digests_checked = 1_000;
        trial
    };
    all.map(of).collect()
}

/// Lets a trial fail, and returns its load.
fn fail(trial: &mut Trial, kind: FailureKind) -> &mut Load {
    trial.outcome = Outcome::Failed(Failure {
        source: Source::Subject,
        kind,
        cause: "it failed".to_owned(),
        log: Vec::new(),
    });
    trial.load.as_mut().expect("loaded")
}

#[test]
fn wrong_bodies_are_counted_in_trials_that_failed_by_them() {
    let mut trials = compared();
    let said = |trials: &[Trial]| sentences::progress(trials, 6);
    let right = said(&trials);
    let wanted = "60,000 answers had the right status and length. 6,000 bodies were compared byte \
                  by byte, during the loads or right after them; all were right.";
    assert!(right.ends_with(wanted), "{right}");

    let load = fail(&mut trials[2], FailureKind::WrongAnswer);
    load.wrong = [("body differs".to_owned(), 12)].into();
    let wrong = said(&trials);
    let wanted = "50,000 answers had the right status and length. 6,000 bodies were compared byte \
                  by byte; 12 answers were wrong, and failed 1 trial.";
    assert!(wrong.ends_with(wanted), "{wrong}");

    // A single request that checks the path can fail a trial, too.
    let mut trials = compared();
    fail(&mut trials[2], FailureKind::WrongAnswer);
    let checked = said(&trials);
    assert!(
        checked.ends_with("; 1 trial failed by a wrong answer."),
        "{checked}"
    );
}

#[test]
fn loads_that_are_short_by_design_are_said_once() {
    let mut trials = compared();
    for trial in &mut trials {
        trial.warnings = vec![Warning::ShortTail { good: 500 }];
    }
    let long = sentences::doubts_in_short(&trials).expect("warnings");
    let wanted = "6 trials with validity warnings: too few answers for a p99 ×6.";
    assert_eq!(long, wanted);
    for trial in &mut trials {
        trial.planned.duration_ms = 250;
    }
    let once = "The loads are too short for some p99: '--duration-ms 1000' makes them longer.";
    assert_eq!(sentences::doubts_in_short(&trials).as_deref(), Some(once));
    trials[0].warnings.push(Warning::Idle { share: 0.5 });
    let both = sentences::doubts_in_short(&trials).expect("warnings");
    let wanted = format!("1 trial with validity warnings: machine idle ×1. {once}");
    assert_eq!(both, wanted);
}

#[test]
fn a_terminal_has_the_overview_first_and_pathologies_once() {
    let (manifest, mut trials) = (manifest(), trials());
    let shown = |trials: &[Trial]| {
        let summary = Summary::new(&manifest, trials).expect("readable");
        terminal::render(&summary, trials, trials.len())
    };
    let of_troubles = shown(&trials);
    let places = [
        "Read this first",
        "### At a glance",
        "### /small",
        "### Pathologies",
    ];
    let places = places.map(|part| of_troubles.find(part).expect(part));
    assert!(places.is_sorted(), "{of_troubles}");

    trials.retain(|trial| trial.planned.cell.path == "plain");
    let of_none = shown(&trials);
    let said = of_none.to_lowercase().matches("pathologies").count();
    assert_eq!(said, 1, "{of_none}");
    // The source of the statistics is in the report; so is what no mark stands for.
    assert!(!of_none.contains("Hodges"), "{of_none}");
    assert!(of_none.contains("docs/METHODOLOGY.md"), "{of_none}");
    assert!(!of_none.contains("Can't tell:"), "{of_none}");
}

#[test]
fn a_remark_is_announced_where_there_is_no_pathology() {
    let (manifest, mut trials) = (manifest(), compared());
    let said = |trials: &[Trial]| {
        let summary = Summary::new(&manifest, trials).expect("readable");
        terminal::render(&summary, trials, trials.len())
    };
    let without = said(&trials);
    assert!(without.contains("Pathologies: none found.\n"), "{without}");
    for trial in &mut trials {
        trial.processes[0].cpu_us = 0.0;
    }
    let with = said(&trials);
    let announced = "Pathologies: none found, but 1 remark; see below.\n";
    assert!(with.contains(announced), "{with}");
    assert!(with.contains("'server' of fast"), "{with}");
}
