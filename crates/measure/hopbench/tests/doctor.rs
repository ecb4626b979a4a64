//! Goal: doctor says whether this is the machine that a profile was made on, and whether others use
//! it. Method: the program itself, in an empty directory; profiles are changed by hand.

mod support;

use std::fs;

use serde_json::Value;
use support::{
    shell::{Shell, reference_run},
    text,
};

/// Returns the notes of the findings with this name, each with its state. Programs that are not
/// built may be missing, whatever else is found.
fn findings(shell: &Shell, arguments: &[&str], what: &str) -> Vec<(String, String)> {
    let result = shell.hopbench(&[&["doctor", "--format=json"], arguments].concat());
    let findings: Value = serde_json::from_slice(&result.stdout).expect("JSON");
    let findings = findings.as_array().expect("a list").iter();
    let named = findings.filter(|finding| finding["what"] == what);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    named
        .map(|finding| (text(&finding["state"]), text(&finding["note"])))
        .collect()
}

const WHAT: &str = "hardware profile";

#[test]
fn a_machine_is_compared_with_its_profile() {
    let shell = Shell::new();
    let none = findings(&shell, &[], WHAT);
    assert!(
        none[0].0 == "ok" && none[0].1.contains("--save-profile"),
        "{none:?}"
    );
    let saved = findings(&shell, &["--save-profile=mine.json"], WHAT);
    assert_eq!(
        saved,
        [("ok".to_owned(), "written to 'mine.json'".to_owned())]
    );
    let same = findings(&shell, &["--profile=mine.json"], WHAT);
    assert_eq!(same, [("ok".to_owned(), "as in 'mine.json'".to_owned())]);

    let file = shell.directory.path().join("mine.json");
    let mut profile: Value =
        serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    profile["cores"] = 1_000.into();
    profile["kernel"] = "none".into();
    shell.write("mine.json", &profile.to_string());
    let other = findings(&shell, &["--profile=mine.json"], WHAT);
    assert_eq!(other.len(), 2, "{other:?}");
    assert!(
        other.iter().all(|(state, _)| state == "warning"),
        "{other:?}"
    );
    assert!(other[0].1.starts_with("cores: '"), "{other:?}");
    assert!(
        other[0].1.ends_with("' here, '1000' in 'mine.json'"),
        "{other:?}"
    );
    assert!(other[1].1.starts_with("kernel: '"), "{other:?}");
}

#[test]
fn a_run_has_a_profile_and_the_reference_run_is_looked_for() {
    let shell = Shell::new();
    let run = reference_run();
    let run = run.to_str().expect("a name");
    let named = findings(&shell, &["--profile", run], WHAT);
    assert!(named[0].1.contains(run), "{named:?}");

    let reference = shell.directory.path().join("bench_results/reference/run");
    fs::create_dir_all(&reference).expect("made");
    let manifest = fs::read_to_string(format!("{run}/manifest.json")).expect("there");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["machine"]["cores"] = 1_000.into();
    fs::write(reference.join("manifest.json"), manifest.to_string()).expect("written");
    let found = findings(&shell, &[], WHAT);
    let expected = "'1000' in 'bench_results/reference/run'";
    assert!(
        found.iter().any(|(_, note)| note.ends_with(expected)),
        "{found:?}"
    );
    fs::write(reference.join("manifest.json"), "{}").expect("written");
    let broken = findings(&shell, &[], WHAT);
    assert_eq!(broken[0].0, "warning");
    assert!(
        broken[0].1.starts_with("not compared: could not read"),
        "{broken:?}"
    );
}

#[test]
fn a_profile_that_cannot_be_read_is_named() {
    let shell = Shell::new();
    let absent = ["there is no hardware profile 'nope.json'", "--save-profile"];
    shell.mistake(&["doctor", "--profile=nope.json"], 2, &absent);
    for content in ["not JSON", "{}", "[1]"] {
        shell.write("odd.json", content);
        let odd = [
            "'odd.json' is not a hardware profile",
            "expected a file that",
        ];
        shell.mistake(&["doctor", "--profile=odd.json"], 2, &odd);
    }
    shell.mistake(&["doctor", "--profile=."], 2, &["'.' is not a run"]);
    let nowhere = ["could not write '/nope/x'", "there is no directory '/nope'"];
    shell.mistake(&["doctor", "--save-profile=/nope/x"], 2, &nowhere);
    let both = ["--save-profile", "cannot be used with"];
    shell.mistake(&["doctor", "--profile=a", "--save-profile=b"], 2, &both);
}

#[test]
fn signs_of_neighbours_have_a_value_or_are_not_known() {
    let shell = Shell::new();
    for (what, value) in [
        ("load average", "per core, over the last minute"),
        ("busy cores", "% of all cores' time in 200 ms"),
        ("stolen time", "% of all cores' time in 200 ms"),
        ("CPU pressure", "of the last 10 s"),
        ("throttling", "quota"),
    ] {
        let found = findings(&shell, &[], what);
        let [(_, note)] = &found[..] else {
            panic!("{what}: {found:?}");
        };
        let is_told = note.contains(value) || note.contains("periods since");
        assert!(is_told || note.starts_with("not known: "), "{what}: {note}");
    }
    let text = text(&shell.hopbench(&["doctor"]).stdout);
    assert!(text.contains("stolen time"), "{text}");
}

#[test]
fn the_programs_of_a_path_of_one_s_own_are_looked_for() {
    let shell = Shell::new();
    let file = shell.write(
        "mine.toml",
        "summary = 'x'\nfront = '127.0.0.1:{{port:front}}'\n[[process]]\nname = 'x'\n\
         role = 'hop'\ncommand = ['{{program:no-such-program}}', '{{port:front}}']\n\
         version = ['{{program:no-such-program}}']\n",
    );
    let mine = findings(&shell, &[&file], "path mine");
    assert!(
        mine[0].0 == "BROKEN" && mine[0].1.contains("no-such-program"),
        "{mine:?}"
    );
    // Others aren't asked for.
    assert_eq!(findings(&shell, &[&file], "path direct"), []);
    shell.mistake(&["doctor", "dirct"], 2, &["did you mean 'direct'?"]);
}
