//! Goal: `docs/schema/` describes a run directory for readers that don't know the types. Method:
//! generate the schemas from the types, and validate committed and made-up records with them.
//!
//! `UPDATE_SCHEMA=1 cargo test -p hopbench-analysis --test schema` writes them anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hopbench_analysis::record::{
    Build, Failure, FailureKind, Manifest, OpenLoop, Outcome, Plan, Profile, SCHEMA, Source, Trial,
    Warning,
};
use jsonschema::Validator;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// Title and file of each schema.
const MANIFEST: (&str, &str) = ("manifest.json", "manifest.schema.json");
const PLAN: (&str, &str) = ("plan.json", "plan.schema.json");
const PROFILES: (&str, &str) = ("profiles.json", "profiles.schema.json");
const TRIAL: (&str, &str) = ("a line of trials.jsonl", "trial.schema.json");

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    root.expect("crates/measure/hopbench-analysis is three below")
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Generates the schema of what is written: a field is required unless it may be left out.
fn generate<T: JsonSchema>((title, file): (&str, &str)) -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let name = file.split('.').next().expect("before the dot");
    let id = format!("urn:hopbench:{name}:{SCHEMA}");
    schema.insert("$id".to_owned(), id.into());
    schema.insert("title".to_owned(), title.into());
    let text = serde_json::to_string_pretty(&schema).expect("JSON");
    // `None` in the types is `null` in the records.
    text.replace("`None`", "`null`") + "\n"
}

fn committed((_, file): (&str, &str)) -> PathBuf {
    root().join("docs/schema").join(file)
}

/// Makes a validator from the types. Another test compares the committed schemas with the types.
fn validator<T: JsonSchema>(which: (&str, &str)) -> Validator {
    let schema = parse(&generate::<T>(which));
    // This validates the schema itself, too.
    jsonschema::draft202012::new(&schema).expect("a valid schema")
}

fn assert_valid(validator: &Validator, record: &Value, name: &str) {
    let errors = validator.validate(record).err().into_iter().flatten();
    let errors: Vec<String> = errors
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{name}:\n{}", errors.join("\n"));
}

/// Returns the directories of the committed runs.
fn reference_runs() -> Vec<PathBuf> {
    let runs = fs::read_dir(root().join("bench_results/reference")).expect("there are some");
    let runs: Vec<PathBuf> = runs
        .map(|run| run.expect("listed").path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!runs.is_empty(), "no reference run is committed");
    runs
}

fn a_trial() -> Trial {
    let trials = read(&reference_runs()[0].join("trials.jsonl"));
    let first = trials.lines().next().expect("a line");
    serde_json::from_str(first).expect("a trial")
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for (which, generated) in [
        (MANIFEST, generate::<Manifest>(MANIFEST)),
        (PLAN, generate::<Plan>(PLAN)),
        (PROFILES, generate::<Vec<Profile>>(PROFILES)),
        (TRIAL, generate::<Trial>(TRIAL)),
    ] {
        let path = committed(which);
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
            fs::write(&path, &generated).expect("writable");
        }
        // Compared as values: the order of fields depends on serde_json's features, which other
        // crates can change.
        assert!(
            parse(&read(&path)) == parse(&generated),
            "'{}' is not what the types say; write it anew with 'UPDATE_SCHEMA=1 cargo test -p \
             hopbench-analysis --test schema'",
            path.display()
        );
    }
}

#[test]
fn committed_runs_are_valid() {
    let (manifest, plan, trial) = (
        validator::<Manifest>(MANIFEST),
        validator::<Plan>(PLAN),
        validator::<Trial>(TRIAL),
    );
    for run in reference_runs() {
        for (validator, file) in [(&manifest, "manifest.json"), (&plan, "plan.json")] {
            let path = run.join(file);
            assert_valid(validator, &parse(&read(&path)), &path.display().to_string());
        }
        let path = run.join("trials.jsonl");
        for (index, line) in read(&path).lines().enumerate() {
            let name = format!("{}:{}", path.display(), index + 1);
            assert_valid(&trial, &parse(line), &name);
        }
    }
}

/// Validates fields and warnings that no committed run has.
#[test]
fn all_that_can_be_written_is_valid() {
    let mut trial = a_trial();
    trial.planned.cell.rate_rps = Some(1_000);
    trial.planned.cell.build = Some(Build::B);
    let load = trial.load.as_mut().expect("it has metrics");
    load.open_loop = Some(OpenLoop {
        late_us_p50: Some(0.5),
        ..OpenLoop::default()
    });
    trial.warnings = warnings();
    let validator = validator::<Trial>(TRIAL);
    let record = serde_json::to_value(&trial).expect("JSON");
    assert_valid(&validator, &record, "every warning");

    trial.load = None;
    trial.outcome = Outcome::Failed(Failure {
        source: Source::LoadGenerator,
        kind: FailureKind::TimeOut,
        cause: "late".to_owned(),
        log: vec!["late".to_owned()],
    });
    let record = serde_json::to_value(&trial).expect("JSON");
    assert_valid(&validator, &record, "a failure");
}

fn warnings() -> Vec<Warning> {
    let share = 0.5;
    vec![
        Warning::Errors {
            failed: 1,
            requests: 2,
        },
        Warning::GeneratorBound {
            cores_used: 1.9,
            cores_max: 2.0,
        },
        Warning::Idle { share },
        Warning::LittlesLaw {
            concurrency: 8,
            in_flight: 4.0,
        },
        Warning::MeanAboveP99 {
            mean_us: 2.0,
            p99_us: 1.0,
        },
        Warning::OtherLoad { share },
        Warning::Overrun {
            asked_ms: 1,
            took_ms: 9.0,
        },
        Warning::Steal { share },
        Warning::ShortTail { good: 3 },
        Warning::Unstoppable {
            process: "host".to_owned(),
        },
    ]
}

#[test]
fn broken_records_are_not_valid() {
    let validator = validator::<Trial>(TRIAL);
    let trial = serde_json::to_value(a_trial()).expect("JSON");
    for (pointer, broken) in [
        ("/trial", json!("1")),
        ("/concurrency", json!(-1)),
        ("/keep_alive", json!(null)),
        ("/outcome", json!("fine")),
        ("/outcome", json!({"failed": {"source": "subject"}})),
        ("/load/requests", json!(1.5)),
        ("/load/latency/p99_us", json!("12")),
        ("/cpu_us", json!({"client": null})),
        ("/warnings", json!([{"steal": {}}])),
        ("/warnings", json!(["late"])),
    ] {
        let mut record = trial.clone();
        *record.pointer_mut(pointer).expect("a field") = broken;
        assert!(!validator.is_valid(&record), "{pointer}: {record}");
    }
    for field in ["trial", "path", "outcome", "load", "timing", "warnings"] {
        let mut record = trial.clone();
        record.as_object_mut().expect("an object").remove(field);
        assert!(!validator.is_valid(&record), "without '{field}'");
    }
}
