//! Goal: two runs are compared only if they were made alike, and a path that fails more than it did
//! is named whatever its other metrics say. Method: one side of a comparison is changed.

use super::*;

/// Gives `fast` 43 % more requests, and makes a tenth of them errors.
fn with_errors(trials: &mut [Trial]) {
    for trial in trials {
        if trial.planned.cell.path == "fast" {
            let load = trial.load.as_mut().expect("loaded");
            load.requests = load.requests * 143 / 100;
            load.good = load.requests * 9 / 10;
        }
    }
}

#[test]
fn errors_are_shown_beside_what_they_make_faster() {
    compare_with(
        |_, trials| with_errors(trials),
        |comparison| {
            let comparison = comparison.expect("comparable");
            let text = compare::markdown(&comparison);
            assert!(text.contains("### More failures than before"), "{text}");
            let expected = "matrix fast /small c=8: 1,374 of 13,728 requests were not answered \
                            correctly, against 0 of 9,600 in base";
            assert!(text.contains(expected), "{text}");
            assert!(
                text.contains("| fast | 8 | 16 % | 20 % | 0 | 10 % |"),
                "{text}"
            );
            assert!(
                text.contains(" 129 % (122 %–136 %), more failures |"),
                "{text}"
            );
            let json = compare::cells(&comparison);
            let fast = json
                .iter()
                .find(|it| it["path"] == "fast" && it["concurrency"] == 8);
            let fast = fast.expect("there");
            assert_eq!(fast["answers_less"], true);
            assert_eq!(fast["head"]["unanswered_requests"], 1_374);
            assert_eq!(fast["base"]["unanswered_requests"], 0);
        },
    );
}

#[test]
fn one_failed_trial_of_six_and_five_of_six_are_named() {
    let side = |failed: usize| -> Vec<Trial> {
        let mut trials = Vec::new();
        for block in 1..=6_u32 {
            trials.push(trial("plain", 8, block, 0, 20_000, 200));
            let mut one = trial("fast", 8, block, 0, 10_000, 200);
            if block as usize <= failed {
                one.outcome = Outcome::Failed(Failure {
                    source: Source::Subject,
                    kind: FailureKind::Crash,
                    cause: "it crashed".to_owned(),
                    log: Vec::new(),
                });
            }
            trials.push(one);
        }
        trials
    };
    let manifest = manifest();
    let (base, head) = (side(1), side(5));
    let summaries = [&base, &head].map(|it| Summary::new(&manifest, it).expect("valid records"));
    let [of_base, of_head] = [(0, &base), (1, &head)].map(|(index, trials)| Side {
        summary: &summaries[index],
        trials,
    });
    let comparison = Comparison::new(of_base, of_head).expect("comparable");
    let expected = "matrix fast /small c=8: 5 of 6 trials failed, against 1 of 6 in base (p 0.04)";
    for text in [
        compare::markdown(&comparison),
        compare::terminal(&comparison),
        crate::report::html::comparison(["a", "b"], [&manifest; 2], &comparison),
    ] {
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("5 of 6"), "{text}");
    }
    // The other way round nothing fails more.
    let better = Comparison::new(of_head, of_base).expect("comparable");
    let text = compare::markdown(&better);
    assert!(!text.contains("More failures"), "{text}");
}

#[test]
fn another_toolchain_clock_memory_or_outside_program_is_another_condition() {
    let keys = |change: fn(&mut Manifest)| -> Vec<String> {
        let found = incomparable(|manifest, _| change(manifest));
        found.into_iter().map(|[key, ..]| key).collect()
    };
    assert_eq!(
        keys(|it| it.toolchain = "rustc 2.0".to_owned()),
        ["toolchain"]
    );
    let clock = keys(|it| it.machine.clock_source = "hpet".to_owned());
    assert_eq!(clock, ["clock source"]);
    assert_eq!(keys(|it| it.machine.memory_kib *= 2), ["memory"]);
    let version = keys(|it| {
        let receipt = it.paths[1].receipts.get_mut("server").expect("there");
        "fast 2.0".clone_into(receipt);
    });
    assert_eq!(version, ["version of 'server' on path 'fast'"]);
    let front = keys(|it| it.paths[1].front.tls = true);
    assert_eq!(front, ["protocol at the front of path 'fast'"]);
}

#[test]
fn what_is_meant_to_differ_may() {
    // The kernel keeps some of the memory for itself, and not always as much.
    compare_with(
        |manifest, _| manifest.machine.memory_kib -= 100,
        |comparison| assert!(comparison.is_ok()),
    );
    // Programs of the workspace report hopbench's own version.
    let (mut base, mut head) = (manifest(), manifest());
    for (manifest, version) in [(&mut base, "0.0.0"), (&mut head, "0.1.0")] {
        version.clone_into(&mut manifest.hopbench);
        for path in &mut manifest.paths {
            path.receipts = [("server".to_owned(), format!("origin {version}"))].into();
        }
    }
    let trials = trials();
    let summaries = [&base, &head].map(|it| Summary::new(it, &trials).expect("valid records"));
    let [of_base, of_head] = [0, 1].map(|index: usize| Side {
        summary: &summaries[index],
        trials: &trials,
    });
    assert!(Comparison::new(of_base, of_head).is_ok());
    // A comparison of two versions of a program has to be asked for.
    let mut other = manifest();
    other.paths[1].receipts = [("server".to_owned(), "fast 2.0".to_owned())].into();
    let usual = manifest();
    let of_base = Summary::new(&usual, &trials).expect("valid records");
    let of_head = Summary::new(&other, &trials).expect("valid records");
    let side = |summary| Side {
        summary,
        trials: &trials,
    };
    let refused = Comparison::new(side(&of_base), side(&of_head)).expect_err("another version");
    let advice = "; to compare just these versions, add '--other-versions', ";
    assert!(refused.to_string().contains(advice), "{refused}");
    assert!(Comparison::of_versions(side(&of_base), side(&of_head)).is_ok());
}

#[test]
fn a_changed_definition_is_said_with_its_lines() {
    let (mut base, mut head) = (manifest(), manifest());
    assert_eq!(compare::definitions(&base, &head), [""; 0]);
    "summary = 'x'\nworkers 2\n".clone_into(&mut base.paths[1].definition);
    // An older build has recorded none.
    assert_eq!(compare::definitions(&base, &head), [""; 0]);
    "summary = 'x'\nworkers 4\nnodelay\n".clone_into(&mut head.paths[1].definition);
    assert_eq!(
        compare::definitions(&base, &head),
        [
            "the definition of 'fast' has changed: 'workers 2' in base, 'workers 4' and 1 more \
             line in head"
        ]
    );
}

#[test]
fn runs_of_different_paths_say_which() {
    let of_paths = |path: &str, trials: &mut Vec<Trial>| {
        trials.retain(|trial| ["plain", path].contains(&trial.planned.cell.path.as_str()));
    };
    let manifest = manifest();
    let (mut base, mut head) = (trials(), trials());
    of_paths("fast", &mut base);
    of_paths("slow", &mut head);
    let summaries = [&base, &head].map(|it| Summary::new(&manifest, it).expect("valid records"));
    let side = |index: usize, trials| Side {
        summary: &summaries[index],
        trials,
    };
    let error = Comparison::new(side(0, &base), side(1, &head)).expect_err("other paths");
    assert_eq!(
        error.to_string(),
        "the runs are not comparable: different paths: 'fast' only in base, 'slow' only in head; a \
         comparison needs a path and a load that both runs have: to compare two paths, measure \
         both in one run, with '--path' for each"
    );
    let mut moved = head.clone();
    for trial in &mut moved {
        trial.planned.cell.endpoint = "/other".to_owned();
        trial.planned.cell.concurrency += 1;
    }
    let summary = Summary::new(&manifest, &moved).expect("valid records");
    let moved = Side {
        summary: &summary,
        trials: &moved,
    };
    let error = Comparison::new(side(0, &base), moved).expect_err("all is different");
    let expected = "'fast' only in base, 'slow' only in head; different endpoints: '/small' only \
                    in base, '/other' only in head; different loads: 'c=1', 'c=8' only in base, \
                    'c=2', 'c=9' only in head;";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn each_column_of_a_comparison_has_a_whole_heading() {
    compare_with(
        |_, _| {},
        |comparison| {
            let text = compare::terminal(&comparison.expect("comparable"));
            // The tables are too wide for a terminal, so a heading may be the first of its part.
            for heading in text.lines().filter(|line| line.starts_with("| Path")) {
                assert!(!heading.contains("| head |"), "{heading}");
            }
            for heading in ["RPS, head / base", "Trials failed, head"] {
                assert!(text.contains(heading), "'{heading}' is missing: {text}");
            }
        },
    );
}
