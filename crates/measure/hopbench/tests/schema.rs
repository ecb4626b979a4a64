//! Goal: the schemas of the files that users write are those of the parser, and editors can use
//! them. Method: the program prints them; they are compared with the committed ones, and each
//! built-in file is valid by its own.
//!
//! `UPDATE_SCHEMA=1 cargo test -p hopbench --test schema` writes them anew.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{bench::Bench, text};

/// Kinds of files, with the folder of the built-in ones.
const KINDS: [(&str, &str); 4] = [
    ("path", "paths"),
    ("scenario", "scenarios"),
    ("gate", "gates"),
    ("probe", "probes"),
];

fn committed(kind: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    let root = root.expect("crates/measure/hopbench is three below");
    root.join(format!("docs/schema/{kind}.schema.json"))
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("listed").path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn the_schemas_of_files_are_those_of_the_parser() {
    let bench = Bench::new();
    for (kind, folder) in KINDS {
        let fields = format!("--fields={kind}");
        let printed = bench.run(&["describe", &fields, "--format=json"]);
        let schema: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
        let file = committed(kind);
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            let text = serde_json::to_string_pretty(&schema).expect("JSON");
            fs::write(&file, text + "\n").expect("writable");
        }
        let known = fs::read_to_string(&file).expect("committed");
        let known: Value = serde_json::from_str(&known).expect("JSON");
        assert!(
            known == schema,
            "'{}' is old; write it anew",
            file.display()
        );

        let validator = jsonschema::draft202012::new(&schema).expect("a valid schema");
        let mut built_in = Vec::new();
        files(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("catalog")
                .join(folder),
            &mut built_in,
        );
        assert!(built_in.len() > 5, "{built_in:?}");
        for path in built_in {
            let toml = fs::read_to_string(&path).expect("readable");
            let value: Value = toml::from_str(&toml).expect("TOML");
            let errors = validator.validate(&value).err().into_iter().flatten();
            let errors: Vec<String> = errors
                .map(|error| format!("{}: {error}", error.instance_path))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
        assert!(
            !validator.is_valid(&serde_json::json!({"question": 3})),
            "{kind}"
        );
        assert!(
            !validator.is_valid(&serde_json::json!({"no-such-field": 3})),
            "{kind}"
        );
    }
}

#[test]
fn all_fields_are_listed_with_their_defaults() {
    let bench = Bench::new();
    let output = bench.run(&["describe", "--fields=scenario"]);
    let said = text(&output.stdout);
    for part in [
        "keep-alive",
        "default true",
        "\nrequest\n",
        "  weight",
        "\nstage\n",
        "\"step\"",
    ] {
        assert!(said.contains(part), "'{part}' is missing: {said}");
    }
    let output = bench.run(&["describe", "--fields=path"]);
    let said = text(&output.stdout);
    for part in [
        "\nprocess\n",
        "stops-with-stdin",
        "\ncounter\n",
        "\nconservation\n",
        "required",
    ] {
        assert!(said.contains(part), "'{part}' is missing: {said}");
    }
    let output = bench.run(&["describe", "spike"]);
    let said = text(&output.stdout);
    for part in [
        "stage 'spike': evenly to 150 % of the knee, 4000 ms",
        "stage 'before': 50 % of the knee",
        "recovery",
    ] {
        assert!(said.contains(part), "'{part}' is missing: {said}");
    }
    let output = bench.run(&["describe", "mix"]);
    let said = text(&output.stdout);
    for part in [
        "request 'read': /bytes/1024 … /bytes/64024 (64 in turn), weight 9",
        "request 'write': /echo, 16384 bytes, weight 1, correct answer: what the reference says",
    ] {
        assert!(said.contains(part), "'{part}' is missing: {said}");
    }
}
