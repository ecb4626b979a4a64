//! Judges whether a trial's answers and bytes allow any metrics.

use std::{collections::BTreeMap, time::Duration};

use hopbench_analysis::record::{Failure, FailureKind, Load, Source, Trial, Warning};

use super::TrialError;

/// Fails if a load's answers allow no metrics.
pub(super) fn judge(load: &Load, request_timeout: Duration) -> Result<(), TrialError> {
    let fail_of = |source, kind, cause| {
        Err(TrialError::Failed(Failure {
            source,
            kind,
            cause,
            log: Vec::new(),
        }))
    };
    let fail = |kind, cause| fail_of(Source::Subject, kind, cause);
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
        let cause = match load.errors.is_empty() {
            true => "no request was answered".to_owned(),
            false => format!("no request was answered: {}", listed(&load.errors)),
        };
        return fail(FailureKind::Hang, cause);
    }
    Ok(())
}

/// Checks that each counting process has counted every byte of the bodies that the client received:
/// as copied or as not copied.
pub(super) fn check_conservation(trial: &Trial, body_bytes: u64) -> Result<(), TrialError> {
    for (process, counters) in &trial.counters {
        let out = |name: &str| counters.get(name).copied();
        let passed = out("tunnel_bytes_in").zip(out("tunnel_bytes_out"));
        let Some((bytes_in, bytes_out)) = passed else {
            continue;
        };
        if bytes_in.max(bytes_out) < body_bytes {
            return Err(unaccounted(format!(
                "'{process}' counted {bytes_in} bytes in and {bytes_out} out, but the client \
                 received {body_bytes} bytes of bodies"
            )));
        }
    }
    let names = ["tunnel_zero_copy_bytes", "tunnel_copied_bytes"];
    let [zero_copy, copied] = names.map(|name| trial.counter(name));
    // Counters of other kinds of hops are recorded but not checked.
    let mut counted = trial.counters.values();
    let are_counted = counted.any(|of| names.iter().any(|name| of.contains_key(*name)));
    if are_counted && zero_copy + copied < body_bytes {
        return Err(unaccounted(format!(
            "{zero_copy} bytes were counted as passed by reference and {copied} as copied, but the \
             client received {body_bytes} bytes of bodies"
        )));
    }
    Ok(())
}

/// Maximum length of the heads per request, in bytes. Those of the origin take a fifth of it.
const HEAD_BYTES_MAX: u64 = 1_024;

/// Factor above which the bytes were not carried just once.
const REPEATED_FACTOR: f64 = 1.5;

/// Checks the other side of conservation. A process that counted far more than the bodies that the
/// client received or sent, with their heads, has carried some of it twice, or for somebody else.
pub(super) fn repeated(trial: &Trial, body_bytes: u64, requests: u64) -> Option<Warning> {
    let carried_bytes = body_bytes + requests * HEAD_BYTES_MAX;
    trial.counters.iter().find_map(|(process, counters)| {
        let passed = ["tunnel_bytes_in", "tunnel_bytes_out"].map(|name| counters.get(name));
        let counted_bytes = passed.into_iter().flatten().copied().max()?;
        let is_repeated = counted_bytes as f64 > REPEATED_FACTOR * carried_bytes as f64;
        is_repeated.then(|| Warning::Repeated {
            process: process.clone(),
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
        let mut warned = |bytes_in: u64, bytes_out: u64| {
            let counters = [
                ("tunnel_bytes_in", bytes_in),
                ("tunnel_bytes_out", bytes_out),
            ];
            let counters = counters.map(|(name, count)| (name.to_owned(), count));
            trial.counters = [("host".to_owned(), counters.into())].into();
            repeated(&trial, 1_000_000, 10)
        };
        // Everything is carried once, with heads.
        assert_eq!(warned(4_000, 1_002_000), None);
        let (process, body_bytes) = ("host".to_owned(), 1_000_000);
        let twice = Warning::Repeated {
            process,
            counted_bytes: 2_004_000,
            body_bytes,
        };
        assert_eq!(warned(4_000, 2_004_000), Some(twice));
    }
}
