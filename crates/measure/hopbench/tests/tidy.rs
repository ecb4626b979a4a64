//! Goal: what `docs/ARCHITECTURE.md` rules out stays out of the source. Method: read the source,
//! and `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A file that is not a test: its path from the root, and its lines with their numbers.
struct Source {
    path: String,
    lines: Vec<(usize, String)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("crates/measure/hopbench is three below")
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

/// Returns the source without tests, benchmarks and comments.
fn sources() -> Vec<Source> {
    let is_test = |path: &str| {
        let directories = ["/tests/", "/benches/", "crates/testing/"];
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

/// Returns every line that has one of `words`, in files that `applies` accepts.
fn offences(words: &[&str], applies: impl Fn(&str) -> bool) -> Vec<String> {
    offences_by(|line, word| line.contains(word), words, applies)
}

/// Returns every line that has one of `words` by the rule `has`, in files that `applies` accepts.
fn offences_by(
    has: impl Fn(&str, &str) -> bool,
    words: &[&str],
    applies: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().into_iter().filter(|source| applies(&source.path)) {
        for (number, line) in &source.lines {
            for word in words.iter().filter(|word| has(line, word)) {
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
    for directory in ["paths", "scenarios"] {
        files(&catalog.join(directory), &mut names);
    }
    let quoted: Vec<String> = names
        .iter()
        .map(|path| format!("\"{}\"", path.file_stem().expect("named").to_string_lossy()))
        .collect();
    assert!(quoted.len() > 10, "{quoted:?}");
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    // A transport may have the name of a path; transports are named in one place.
    let found = offences(&quoted, |path| {
        path != "crates/hops/tunnel/src/transport.rs"
    });
    assert_none(&found, "paths and scenarios are TOML only");
}

#[test]
fn processes_are_started_in_one_place() {
    let found = offences(&["process::Command::new", "Command::new("], |path| {
        path != "crates/measure/hopbench/src/process.rs"
    });
    assert_none(&found, "children have an owner: use hopbench::process");
}

#[test]
fn unsafe_code_and_memory_orderings_have_an_address() {
    let found = offences(&["unsafe "], |path| {
        !path.starts_with("crates/base/shm-ring/")
    });
    assert_none(&found, "all unsafe code is in shm-ring");
    // rapace's futex words must be read with rapace's ordering; see the head of that file.
    let allowed = [
        "crates/base/shm-ring/",
        "crates/hops/tunnel/src/framed/rapace/shm.rs",
    ];
    // Only as whole names: a release of the programs is something else.
    let has = |line: &str, word: &str| {
        let mut names = line.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        names.any(|name| name == word)
    };
    let orderings = ["Acquire", "Release", "AcqRel", "SeqCst"];
    let found = offences_by(has, &orderings, |path| {
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
        path.starts_with("crates/hops/tunnel/src/") && path != "crates/hops/tunnel/src/copy.rs"
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

/// Finds long functions. rustfmt puts the end of a function right below its beginning.
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
            // A benchmark in the form of a test, which runs for as long as it is told to.
            let is_free = |mark: &str| {
                mark == marks[2] && path == "crates/hops/replay-proxy/tests/performance_harness.rs"
            };
            let marks = marks.iter().filter(|mark| !is_free(mark));
            for mark in marks.filter(|mark| text.contains(mark.as_str())) {
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

/// Folders below `crates/`, each with the folders that its crates may depend on, tests included.
const EDGES: [(&str, &[&str]); 4] = [
    ("base", &["base"]),
    ("workload", &["workload", "base"]),
    ("hops", &["hops", "workload", "base"]),
    // These crates meet the others only through arguments, HTTP, signals and exit codes, so that
    // they can measure any program.
    ("measure", &["measure"]),
];

#[test]
fn crates_depend_on_one_another_as_drawn() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let packages = metadata.workspace_packages();
    let folder = |manifest: &Path| {
        let below = manifest.strip_prefix(root().join("crates"));
        let below = below.expect("a crate is below crates/");
        let folder = below.iter().next().expect("a folder");
        folder.to_str().expect("text").to_owned()
    };
    let folders: BTreeMap<&str, String> = packages
        .iter()
        .map(|package| {
            (
                package.name.as_str(),
                folder(package.manifest_path.as_std_path()),
            )
        })
        .collect();
    let allowed = BTreeMap::from(EDGES);
    let mut found = Vec::new();
    for package in &packages {
        let from = &folders[package.name.as_str()];
        for dependency in &package.dependencies {
            let to = folders.get(dependency.name.as_str());
            if let Some(to) = to.filter(|to| !allowed[from.as_str()].contains(&to.as_str())) {
                let (name, other) = (&package.name, &dependency.name);
                found.push(format!("'{name}' ({from}) depends on '{other}' ({to})"));
            }
        }
    }
    assert_none(&found, "docs/ARCHITECTURE.md has the drawing");
    let analysis = &folders["hopbench-analysis"];
    assert_eq!(
        (analysis.as_str(), folders.len()),
        ("measure", packages.len())
    );
}

/// Crates of the servers that work when a program starts or fails, and on no request.
const BESIDE_REQUESTS: [&str; 11] = [
    "clap_builder",
    "icu_collections",
    "icu_locale_core",
    "icu_normalizer",
    "icu_properties",
    "icu_provider",
    "idna",
    "jiff",
    "miette",
    "regex-syntax",
    "toml",
];

#[test]
fn the_build_saves_nothing_on_the_data_path() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .expect("readable")
        .parse()
        .expect("TOML");
    let release = &manifest["profile"]["release"];
    assert_eq!(release.get("opt-level"), None, "cargo's own 3");
    let lowered = release["package"].as_table().expect("a table");
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata");
    let graph = metadata.resolve.expect("a graph").nodes;
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let programs = [
        "http-tunnel-host",
        "http-tunnel-plugin",
        "http-baseline",
        "forwarder",
        "replay-proxy",
    ];
    let of_programs = graph.iter().map(|node| &node.id);
    let mut open: Vec<_> = of_programs
        .filter(|id| programs.contains(&names[id]))
        .collect();
    assert_eq!(open.len(), programs.len());
    let mut linked = BTreeSet::new();
    while let Some(id) = open.pop() {
        let node = graph.iter().find(|node| node.id == *id);
        let dependencies = &node.expect("every dependency is a node").deps;
        if linked.insert(names[id]) {
            let normal = dependencies.iter().filter(|dependency| {
                let mut kinds = dependency.dep_kinds.iter();
                kinds.any(|it| it.kind == cargo_metadata::DependencyKind::Normal)
            });
            open.extend(normal.map(|dependency| &dependency.pkg));
        }
    }
    let found: Vec<String> = lowered
        .keys()
        .filter(|name| linked.contains(name.as_str()))
        .filter(|name| !BESIDE_REQUESTS.contains(&name.as_str()))
        .map(|name| format!("'{name}' is in a server, and optimised less"))
        .collect();
    assert_none(&found, "profile.release.package in Cargo.toml");
}

#[test]
fn the_measuring_side_knows_no_hop() {
    let catalog = root().join("crates/measure/hopbench/catalog");
    let mut files = Vec::new();
    for directory in ["paths", "counters"] {
        self::files(&catalog.join(directory), &mut files);
    }
    let mut names: BTreeSet<String> = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let values = text.lines().filter_map(|line| line.split_once(" = \""));
        let values = values.filter(|(key, _)| ["name", "role"].contains(key));
        names.extend(values.map(|(_, value)| value.trim_end_matches('"').to_owned()));
        names.insert(
            file.file_stem()
                .expect("named")
                .to_string_lossy()
                .into_owned(),
        );
    }
    assert!(
        ["ring", "plugin", "tunnel_copied_bytes"]
            .iter()
            .all(|it| names.contains(*it))
    );
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    let found = offences(&quoted, |path| path.starts_with("crates/measure/"));
    assert_none(
        &found,
        "a path's file says what its processes, roles and counters are",
    );
}

/// Top-level modules of hopbench, from the bottom up. Each imports only those before it.
const ROOMS: [&str; 10] = [
    "mistake", "console", "process", "catalog", "observe", "plan", "export", "run", "probe", "cmd",
];

/// Returns the modules that a file imports by `use`, as paths from the crate's root.
fn imports(text: &str, module: &[&str]) -> Vec<Vec<String>> {
    let uses = text.split("\nuse ").skip(1);
    let trees = uses.map(|rest| rest.split(';').next().unwrap_or_default());
    let mut found = Vec::new();
    for tree in trees {
        let tree: String = tree.split_whitespace().collect();
        let parent = &module[..module.len() - 1];
        match tree.split_once("::") {
            Some(("crate", rest)) => flatten(rest, &[], &mut found),
            Some(("super", rest)) => flatten(rest, parent, &mut found),
            _ => {}
        }
    }
    found
}

/// Flattens `a::{b, c::{d, e}}` into `a::b`, `a::c::d` and `a::c::e`.
fn flatten(tree: &str, before: &[&str], found: &mut Vec<Vec<String>>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let parts = tree.split("::");
        found.push(
            before
                .iter()
                .copied()
                .chain(parts)
                .map(str::to_owned)
                .collect(),
        );
        return;
    };
    let head: Vec<&str> = head.split("::").filter(|part| !part.is_empty()).collect();
    let before = [before, &head].concat();
    let (mut depth, mut start) = (0, 0);
    for (index, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = &rest[start..index];
                if !item.is_empty() {
                    flatten(item, &before, found);
                }
                start = index + 1;
            }
            _ => {}
        }
    }
}

#[test]
fn imports_are_read_whole() {
    let text = "//! x\nuse crate::{a::{self, B}, c::d::{E, f::G}};\nuse super::h;\nuse std::fs;\n";
    let found = imports(text, &["m", "n"]);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::self", "a::B", "c::d::E", "c::d::f::G", "m::h"]);
}

#[test]
fn modules_do_not_import_one_another_in_circles() {
    const SOURCE: &str = "crates/measure/hopbench/src/";
    let files = all_files("rs");
    let files: Vec<(Vec<&str>, &str)> = files
        .iter()
        .filter_map(|(path, text)| {
            let path = path.strip_prefix(SOURCE)?.strip_suffix(".rs")?;
            let module: Vec<&str> = path.split('/').collect();
            ROOMS
                .contains(&module[0])
                .then_some((module, text.as_str()))
        })
        .collect();
    let is_file = |path: &[String]| files.iter().any(|(module, _)| module == path);
    // Below the top-level modules, a file and the folder of its name are one node.
    let node = |path: &[String]| path.iter().take(2).cloned().collect::<Vec<String>>();
    let mut edges: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
    let mut found = Vec::new();
    for (module, text) in &files {
        let from: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        for path in imports(code, module) {
            let rank = |name: &str| ROOMS.iter().position(|room| *room == name);
            if rank(&path[0]) > rank(module[0]) {
                found.push(format!("{}: {}", module.join("/"), path.join("::")));
            }
            let to = node(&path);
            if is_file(&to) && to != node(&from) {
                edges.entry(node(&from)).or_default().push(to);
            }
        }
    }
    assert_none(
        &found,
        "imports of a room that stands above, see hopbench's lib.rs",
    );
    assert!(edges.len() > 20, "{edges:?}");
    // Modules that import nothing that is left can go. What is left at the end is in a circle.
    let mut nodes: Vec<Vec<String>> = edges.keys().cloned().collect();
    loop {
        let (left, gone): (Vec<_>, Vec<_>) = nodes.iter().cloned().partition(|node| {
            let mut imported = edges[node].iter();
            imported.any(|other| nodes.contains(other))
        });
        if gone.is_empty() {
            break;
        }
        nodes = left;
    }
    let circle: Vec<String> = nodes.iter().map(|node| node.join("::")).collect();
    assert_none(&circle, "these import one another in a circle");
}

/// A line of Markdown that can't be broken: a single link or picture.
fn is_one_link(line: &str) -> bool {
    let link = line.trim_start_matches(['!', '(', '-', ' ']);
    link.starts_with('[') && !link.contains(") ")
}

#[test]
fn lines_of_the_documentation_are_short() {
    let mut found = Vec::new();
    for (path, text) in all_files("md") {
        let (mut is_code, mut is_generated) = (false, false);
        let has_wide_tables = path == "docs/COVERAGE.md"
            || text.contains("\n<!-- made by 'hopbench release-summary'");
        for (index, line) in text.lines().enumerate() {
            is_code ^= line.starts_with("```");
            if line.starts_with("<!-- reference:") {
                is_generated = line.contains("begin");
            }
            let is_row = has_wide_tables && line.starts_with("| ");
            let is_free = is_code || is_generated || is_row || is_one_link(line);
            if !is_free && line.chars().count() > 100 {
                found.push(format!("{path}:{}: over 100 columns", index + 1));
            }
        }
    }
    assert_none(&found, "wrap it, or turn the table into a list");
    let readme = fs::read_to_string(root().join("README.md")).expect("text");
    assert!(readme.lines().count() <= 120, "README.md is over 120 lines");
}

#[test]
fn doc_comments_are_sentences() {
    let mut found = Vec::new();
    for (path, text) in all_files("rs") {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let comment = line
                .strip_prefix("/// ")
                .or_else(|| line.strip_prefix("//! "));
            let is_fragment = |text: &str| text.starts_with("Of ") || text.starts_with("What ");
            if comment.is_some_and(is_fragment) {
                found.push(format!("{path}:{}: '{line}'", index + 1));
            }
        }
    }
    assert_none(
        &found,
        "say what the thing is or does, as in 'Returns …' or 'Milliseconds until …'",
    );
}
