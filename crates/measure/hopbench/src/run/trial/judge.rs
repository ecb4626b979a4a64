//! Judges whether a trial's answers and bytes allow any metrics.

use std::{collections::BTreeMap, time::Duration};

use hopbench_analysis::record::{Failure, FailureKind, Load, PlannedTrial, Source, Trial, Warning};

use super::TrialError;
use crate::catalog::{Conservation, PathDefinition, Prepare, Take};

/// Fails if a load's answers allow no metrics.
pub(super) fn judge(load: &Load, request_timeout: Duration) -> Result<(), TrialError> {
    let listed = |counts: &BTreeMap<String, u64>| {
        let counts: Vec<String> = counts
            .iter()
            .map(|(what, count)| format!("{count} × {what}"))
            .collect();
        counts.join(", ")
    };
    if !load.wrong.is_empty() {
        // Some may belong to no request of the load, so they are not given as a share of its
        // requests.
        let cause = format!(
            "wrong answers, besides {} correct ones: {}",
            load.good,
            listed(&load.wrong)
        );
        return fail(FailureKind::WrongAnswer, cause);
    }
    // The answers are no longer HTTP: bytes were lost, repeated or mixed up.
    let garbled = load
        .errors
        .iter()
        .filter(|(error, _)| error.starts_with("invalid HTTP"));
    let garbled: BTreeMap<String, u64> = garbled
        .map(|(error, count)| (error.clone(), *count))
        .collect();
    if !garbled.is_empty() {
        return fail(
            FailureKind::WrongAnswer,
            format!("garbled answers: {}", listed(&garbled)),
        );
    }
    // Text under which the load generator counts requests that timed out.
    let late = load.errors.get("timeout").copied().unwrap_or_default();
    if late > 0 {
        let kind = if load.good == 0 {
            FailureKind::Hang
        } else {
            FailureKind::TimeOut
        };
        let cause = format!(
            "{late} of {} requests got no answer within {} ms",
            load.requests,
            request_timeout.as_millis()
        );
        return fail(kind, cause);
    }
    // Nothing was sent, and not because the path kept connections waiting.
    if load.requests == 0 && load.dropped_by_path() == 0 {
        let cause = format!("the load generator sent none of {} requests", load.due());
        return fail_of(Source::LoadGenerator, FailureKind::Unable, cause);
    }
    if !load.has_metrics() {
        // Time-outs were told apart above, so any errors are of connections that were closed.
        return match load.errors.is_empty() {
            true => fail(FailureKind::Hang, "no request was answered".to_owned()),
            false => {
                let cause = format!("no request was answered: {}", listed(&load.errors));
                fail(FailureKind::NoAnswer, cause)
            }
        };
    }
    Ok(())
}

/// Fails if the load of a trial allows no metrics.
pub(super) fn judge_trial(
    load: &Load,
    planned: &PlannedTrial,
    request_timeout: Duration,
) -> Result<(), TrialError> {
    match planned.stages.is_empty() {
        true => judge(load, request_timeout).and_then(|()| judge_count(load, planned)),
        false => judge_staged(load),
    }
}

/// Fails if the answers to a load in stages are wrong. Answers that never came are a result.
fn judge_staged(load: &Load) -> Result<(), TrialError> {
    let only_wrong = Load {
        errors: load
            .errors
            .iter()
            .filter(|(error, _)| error.starts_with("invalid HTTP"))
            .map(|(error, count)| (error.clone(), *count))
            .collect(),
        ..load.clone()
    };
    judge(&only_wrong, Duration::ZERO)
}

/// Fails if a load that counts its requests did not send them all in time.
fn judge_count(load: &Load, planned: &PlannedTrial) -> Result<(), TrialError> {
    match planned.requests {
        Some(requests) if load.due() < requests => fail(
            FailureKind::Hang,
            format!(
                "only {} of {requests} requests were sent within {} ms",
                load.requests, planned.duration_ms
            ),
        ),
        _ => Ok(()),
    }
}

/// Fails if a preparing load did not get all its answers, or if counters did not grow as they must.
pub(super) fn judge_preparation(
    trial: &Trial,
    prepare: &Prepare,
    load: &Load,
) -> Result<(), TrialError> {
    let name = &prepare.name;
    if load.good < prepare.requests {
        let kinds = load.wrong.iter().chain(&load.errors);
        let kinds: Vec<String> = kinds
            .map(|(what, count)| format!("{count} × {what}"))
            .collect();
        let cause = format!(
            "preparation '{name}': only {} of {} requests got a correct answer: {}",
            load.good,
            prepare.requests,
            if kinds.is_empty() {
                "the others were not sent in time".to_owned()
            } else {
                kinds.join(", ")
            }
        );
        return fail(FailureKind::Preparation, cause);
    }
    let Some(prepared) = trial.prepared.last() else {
        return Ok(());
    };
    for (counter, at_least) in &prepare.counters_at_least {
        let of_processes = prepared.counters.values();
        let values = of_processes
            .filter_map(|counters| counters.get(counter))
            .copied();
        // A path without the counter has nothing to prepare.
        let Some(value) = values.reduce(u64::saturating_add) else {
            continue;
        };
        if value < *at_least {
            let cause = format!(
                "preparation '{name}': '{counter}' grew by {value}, expected at least {at_least}"
            );
            return fail(FailureKind::Preparation, cause);
        }
    }
    Ok(())
}

fn fail(kind: FailureKind, cause: String) -> Result<(), TrialError> {
    fail_of(Source::Subject, kind, cause)
}

fn fail_of(source: Source, kind: FailureKind, cause: String) -> Result<(), TrialError> {
    Err(TrialError::Failed(Failure {
        source,
        kind,
        cause,
        log: Vec::new(),
    }))
}

/// Checks that the counters which a path declares cover the bodies that the client received.
pub(super) fn check_conservation(
    trial: &Trial,
    path: &PathDefinition,
    body_bytes: u64,
) -> Result<(), TrialError> {
    for rule in &path.counters.rules {
        let counted = counted(trial, path, rule);
        if counted < body_bytes {
            return Err(unaccounted(format!(
                "{} counted {counted} as {}, but the client received {body_bytes} bytes of bodies",
                who(rule),
                rule.counters.join(match rule.take {
                    Take::Largest => " or ",
                    Take::Sum => " and ",
                })
            )));
        }
    }
    Ok(())
}

/// Evaluates a rule: each counter is added up over the processes of the role.
fn counted(trial: &Trial, path: &PathDefinition, rule: &Conservation) -> u64 {
    let of_role = |name: &str| {
        let mut processes = path.processes.iter().filter(|process| process.name == name);
        processes.any(|process| rule.role.as_ref().is_none_or(|role| process.role == *role))
    };
    let sum = |counter: &String| -> u64 {
        let processes = trial.counters.iter().filter(|(name, _)| of_role(name));
        let values = processes.filter_map(|(_, counters)| counters.get(counter));
        values.fold(0, |sum, value| sum.saturating_add(*value))
    };
    let sums = rule.counters.iter().map(sum);
    match rule.take {
        Take::Largest => sums.max().unwrap_or_default(),
        Take::Sum => sums.fold(0, u64::saturating_add),
    }
}

fn who(rule: &Conservation) -> String {
    match &rule.role {
        Some(role) => format!("'{role}'"),
        None => "the path".to_owned(),
    }
}

/// Maximum length of the heads per request, in bytes. Those of the origin take a fifth of it.
const HEAD_BYTES_MAX: u64 = 1_024;

/// Checks the other side of conservation. A role that counted far more than the bodies that the
/// client received or sent, with their heads, has carried some of it twice, or for somebody else.
pub(super) fn repeated(
    trial: &Trial,
    path: &PathDefinition,
    body_bytes: u64,
    requests: u64,
) -> Option<Warning> {
    let carried_bytes = body_bytes + requests * HEAD_BYTES_MAX;
    path.counters.rules.iter().find_map(|rule| {
        let counted_bytes = counted(trial, path, rule);
        let is_repeated = counted_bytes as f64 > rule.at_most? * carried_bytes as f64;
        is_repeated.then(|| Warning::Repeated {
            process: rule.role.clone().unwrap_or_else(|| path.name.clone()),
            counted_bytes,
            body_bytes,
        })
    })
}

fn unaccounted(cause: String) -> TrialError {
    let (source, kind) = (Source::Subject, FailureKind::Conservation);
    TrialError::Failed(Failure {
        source,
        kind,
        cause,
        log: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use hopbench_analysis::record::OpenLoop;

    use super::*;

    fn failure(load: &Load) -> Option<(Source, FailureKind)> {
        match judge(load, Duration::from_secs(1)) {
            Ok(()) => None,
            Err(TrialError::Failed(failure)) => Some((failure.source, failure.kind)),
            Err(TrialError::Interrupted) => panic!("nobody interrupts"),
        }
    }

    #[test]
    fn a_load_without_a_right_answer_has_no_metrics() {
        let load = |requests, dropped, dropped_late| Load {
            elapsed_us: 1e6,
            requests,
            good: requests,
            open_loop: Some(OpenLoop {
                scheduled: 10,
                dropped,
                dropped_late,
                ..OpenLoop::default()
            }),
            ..Load::default()
        };
        assert_eq!(failure(&load(10, 0, 0)), None);
        assert_eq!(failure(&load(1, 9, 0)), None);
        let hang = Some((Source::Subject, FailureKind::Hang));
        assert_eq!(failure(&load(0, 10, 0)), hang);
        assert_eq!(failure(&load(0, 10, 9)), hang);
        let unable = Some((Source::LoadGenerator, FailureKind::Unable));
        assert_eq!(failure(&load(0, 10, 10)), unable);
        assert_eq!(failure(&Load::default()), unable);
        let closed = Load {
            errors: [("connection closed before message completed".to_owned(), 9)].into(),
            ..load(0, 0, 0)
        };
        let closed = Load {
            requests: 9,
            ..closed
        };
        let no_answer = Some((Source::Subject, FailureKind::NoAnswer));
        assert_eq!(failure(&closed), no_answer);
        let no_time = Load {
            elapsed_us: 0.0,
            ..load(10, 0, 0)
        };
        assert_eq!(failure(&no_time), hang);
    }

    #[test]
    fn a_process_that_carries_everything_twice_is_named() {
        let planned = serde_json::json!({
            "trial": 1, "block": 1, "twin": 0, "duration_ms": 1000, "warm_up_ms": 0,
            "scenario": "x", "endpoint": "/", "path": "x", "concurrency": 8, "keep_alive": true,
        });
        let mut trial =
            crate::run::trial::empty_record(serde_json::from_value(planned).expect("a plan"));
        let path = PathDefinition::parse(
            "x",
            "summary = 'x'\nfront = '127.0.0.1:{{port:a}}'\n\
             [[conservation]]\nrole = 'near'\ncounters = ['in', 'out']\n\
             take = 'largest'\nat-most = 1.5\n\
             [[process]]\nname = 'a'\nrole = 'near'\n\
             command = ['a', '{{port:a}}', '{{port:b}}']\nversion = ['a']\n\
             admin = '127.0.0.1:{{port:b}}'\n",
        )
        .expect("valid");
        let mut warned = |bytes_in: u64, bytes_out: u64| {
            let counters = [("in", bytes_in), ("out", bytes_out)];
            let counters = counters.map(|(name, count)| (name.to_owned(), count));
            trial.counters = [("a".to_owned(), counters.into())].into();
            let kept = check_conservation(&trial, &path, 1_000_000);
            assert_eq!(kept.is_ok(), bytes_in.max(bytes_out) >= 1_000_000);
            repeated(&trial, &path, 1_000_000, 10)
        };
        // Some of it is lost.
        assert_eq!(warned(4_000, 999_999), None);
        // Everything is carried once, with heads.
        assert_eq!(warned(4_000, 1_002_000), None);
        let (process, body_bytes) = ("near".to_owned(), 1_000_000);
        let twice = Warning::Repeated {
            process,
            counted_bytes: 2_004_000,
            body_bytes,
        };
        assert_eq!(warned(4_000, 2_004_000), Some(twice));
    }
}
