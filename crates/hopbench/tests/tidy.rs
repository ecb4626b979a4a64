//! Goal: what `docs/ARCHITECTURE.md` says is absent from the source stays absent. Method: read the
//! source, and `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Code that is not a test: its path from the root, and its lines with their numbers.
struct Source {
    path: String,
    lines: Vec<(usize, String)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/hopbench is two below")
        .to_owned()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("listed").path();
        let name = path
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        let skipped = ["target", ".git", "bench_results", "snapshots"].contains(&name.as_str());
        if path.is_dir() && !skipped {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn all_files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    let with_ending = found.into_iter().filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == ending)
    });
    let mut read: Vec<(String, String)> = with_ending
        .map(|path| {
            let name = path
                .strip_prefix(root())
                .expect("below")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("text");
            (name, text)
        })
        .collect();
    read.sort();
    assert!(!read.is_empty(), "no .{ending} files are found");
    read
}

/// Without tests and benchmarks, and without what follows `//`.
fn sources() -> Vec<Source> {
    let is_test = |path: &str| {
        let directories = ["/tests/", "/benches/"];
        directories.iter().any(|part| path.contains(part)) || path.ends_with("tests.rs")
    };
    let files = all_files("rs")
        .into_iter()
        .filter(|(path, _)| !is_test(path));
    files
        .map(|(path, text)| {
            let lines = text
                .lines()
                .enumerate()
                .map(|(index, line)| (index + 1, line));
            let code = lines.take_while(|(_, line)| *line != "#[cfg(test)]");
            let code = code.map(|(number, line)| {
                let code = line.split_once("//").map_or(line, |(code, _)| code);
                (number, code.to_owned())
            });
            Source {
                path,
                lines: code.collect(),
            }
        })
        .collect()
}

/// Every line that has one of `words`, in files that `applies` to.
fn offences(words: &[&str], applies: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().into_iter().filter(|source| applies(&source.path)) {
        for (number, line) in &source.lines {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: '{word}'", source.path));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn no_path_or_scenario_is_known_by_name() {
    let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
    let mut names = Vec::new();
    files(&catalog, &mut names);
    let quoted: Vec<String> = names
        .iter()
        .map(|path| format!("\"{}\"", path.file_stem().expect("named").to_string_lossy()))
        .collect();
    assert!(quoted.len() > 10, "{quoted:?}");
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    // A transport may be called as a path is; it is named in one place.
    let found = offences(&quoted, |path| path != "crates/tunnel/src/transport.rs");
    assert_none(&found, "paths and scenarios are TOML only");
}

#[test]
fn processes_are_started_in_one_place() {
    let found = offences(&["process::Command::new", "Command::new("], |path| {
        path != "crates/hopbench/src/process.rs"
    });
    assert_none(&found, "children have an owner: use hopbench::process");
}

#[test]
fn unsafe_code_and_memory_orderings_have_an_address() {
    let found = offences(&["unsafe "], |path| !path.starts_with("crates/shm-ring/"));
    assert_none(&found, "all unsafe code is in shm-ring");
    // rapace's futex words, which must be read with its ordering: see the file's head.
    let allowed = ["crates/shm-ring/", "crates/tunnel/src/framed/rapace/shm.rs"];
    let found = offences(&["Acquire", "Release", "AcqRel", "SeqCst"], |path| {
        !allowed.iter().any(|allowed| path.starts_with(allowed))
    });
    assert_none(&found, "orderings on shared memory are in shm-ring");
}

#[test]
fn payload_is_copied_in_one_place() {
    let copies = [
        "copy_from_slice",
        "extend_from_slice",
        "put_slice",
        "copy_within",
        "copy_to_slice",
        "copy_to_bytes",
        ".to_vec(",
        ".concat(",
        "ptr::copy",
    ];
    let found = offences(&copies, |path| {
        path.starts_with("crates/tunnel/src/") && path != "crates/tunnel/src/copy.rs"
    });
    assert_none(&found, "copies of payload are counted in tunnel::copy");
}

#[test]
fn the_rules_above_can_fail() {
    assert!(!offences(&["fn "], |_| true).is_empty());
    let lines: usize = sources().iter().map(|source| source.lines.len()).sum();
    assert!(lines > 3_000, "only {lines} lines are read");
}

#[test]
fn files_lines_and_functions_are_short() {
    let mut found = Vec::new();
    for (path, text) in all_files("rs") {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > 600 {
            found.push(format!("{path}: {} lines, at most 600", lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            if line.chars().count() > 100 && !line.contains("http") {
                found.push(format!("{path}:{}: over 100 columns", index + 1));
            }
        }
        found.extend(long_functions(&path, &lines));
    }
    assert_none(&found, "short enough to be read");
}

/// rustfmt has set every function's end below its beginning.
fn long_functions(path: &str, lines: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let words: Vec<&str> = code.split(' ').take(4).collect();
        if !words.contains(&"fn") || code.starts_with("//") || code.ends_with(';') {
            continue;
        }
        let end = lines[start..]
            .iter()
            .position(|line| *line == format!("{}}}", " ".repeat(indent)));
        let length = end.map_or(0, |end| end + 1);
        // A table of cases in a test is data.
        if length > 70 && !path.contains("/tests/") {
            found.push(format!(
                "{path}:{}: a function of {length} lines, at most 70",
                start + 1
            ));
        }
    }
    found
}

#[test]
fn nothing_is_left_to_be_done() {
    let mut found = Vec::new();
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "#[ig".to_owned() + "nore",
    ];
    for ending in ["rs", "md", "toml", "sh", "yml"] {
        for (path, text) in all_files(ending) {
            for mark in marks.iter().filter(|mark| text.contains(mark.as_str())) {
                found.push(format!("{path}: '{mark}'"));
            }
        }
    }
    assert_none(&found, "do it, or open an issue");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut found = Vec::new();
    for (path, text) in all_files("md") {
        let directory = root().join(&path);
        let directory = directory.parent().expect("in a directory");
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            let file = link.split('#').next().unwrap_or_default();
            let elsewhere = link.contains("://") || file.is_empty();
            if !elsewhere && !directory.join(file).exists() {
                found.push(format!("{path}: '{link}'"));
            }
        }
    }
    assert_none(&found, "links to files that are not there");
}

#[test]
fn crates_depend_on_one_another_as_drawn() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let members: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let edges = package
                .dependencies
                .iter()
                .filter(|dependency| members.contains(dependency.name.as_str()))
                .map(|dependency| dependency.name.as_str());
            (package.name.as_str(), edges.collect())
        })
        .collect();
    let drawn: BTreeMap<&str, Vec<&str>> = [
        ("hopbench", vec!["hopbench-analysis"]),
        ("hopbench-analysis", vec![]),
        ("hopbench-load", vec![]),
        ("http-baseline", vec!["origin"]),
        ("http-tunnel-host", vec!["origin", "tunnel"]),
        ("http-tunnel-plugin", vec!["origin", "tunnel"]),
        ("origin", vec![]),
        ("shm-ring", vec![]),
        ("tunnel", vec!["origin", "shm-ring"]),
    ]
    .into();
    assert_eq!(edges, drawn, "docs/ARCHITECTURE.md has the drawing");
}
