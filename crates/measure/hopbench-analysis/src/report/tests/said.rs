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
