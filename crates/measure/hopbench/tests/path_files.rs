//! Goal: a path file says how its processes are started, and a mistake in it is named. Method:
//! small paths whose processes check what they were given.

mod support;

use std::{fs, process::Output};

use serde_json::{Value, json};
use support::{
    bench::{Bench, SHORT, failure, run_short, shell_path},
    text,
};

/// An origin that is started by a shell, which checks its surroundings first.
const CHECKED: &str = r#"
summary = 'An origin in surroundings of its own.'
front = '127.0.0.1:{{port:front}}'
[[process]]
name = 'origin'
role = 'origin'
command = ['{{program:sh}}', '-c', '''
test "$GREETING" = "hello, {{port:front}}" && test "$(pwd)" = "DIRECTORY" && test -n "$PATH" &&
exec {{bin:http_baseline}} --listen=127.0.0.1:{{port:front}} --exit-with-stdin''']
version = ['{{program:sh}}', '-c', 'echo $KIND $(pwd) 1.2; test -z "$GREETING"']
stops-with-stdin = true
env = { GREETING = 'hello, {{port:front}}', KIND = 'kind' }
cwd = 'DIRECTORY'
"#;

fn manifest(bench: &Bench) -> Value {
    let text = fs::read_to_string(bench.run_dir().join("manifest.json")).expect("written");
    serde_json::from_str(&text).expect("JSON")
}

fn path_info<'m>(manifest: &'m Value, name: &str) -> &'m Value {
    let mut paths = manifest["paths"].as_array().expect("a list").iter();
    paths.find(|path| path["name"] == name).expect(name)
}

fn assert_refused(refused: &Output, code: i32, expected: &str) {
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(code), "{told}");
    assert!(told.contains(expected), "'{expected}' is missing: {told}");
}

#[test]
fn processes_and_version_commands_get_the_environment_and_the_directory_of_the_file() {
    let bench = Bench::new();
    let here = fs::canonicalize(bench.directory.path()).expect("ours");
    let here = here.to_str().expect("UTF-8");
    let path = bench.write("checked.toml", &CHECKED.replace("DIRECTORY", here));
    run_short(&bench, &path);
    // A value with a port is nothing outside of a trial.
    let manifest = manifest(&bench);
    let receipt = &path_info(&manifest, "checked")["receipts"]["origin"];
    assert_eq!(receipt, &Value::from(format!("kind {here} 1.2")));
    let described = text(&bench.run(&["describe", &path]).stdout);
    assert!(
        described.contains(&format!("cwd               {here}")),
        "{described}"
    );
    assert!(
        described.contains("GREETING=hello, {{port:front}}"),
        "{described}"
    );
    bench.assert_nothing_left();
}

#[test]
fn mistakes_in_surroundings_are_named() {
    let bench = Bench::new();
    for (from, to, expected) in [
        ("GREETING =", "'2nd word' =", "expected a name of letters"),
        (
            "KIND =",
            "HOPBENCH_DIRECTORY =",
            "doesn't begin with a digit or 'HOPBENCH_'",
        ),
        (
            "'DIRECTORY'",
            "'relative'",
            "'cwd': expected the full path of a directory",
        ),
        (
            "'DIRECTORY'",
            "'{{dir}}'",
            "'cwd': expected the full path of a directory",
        ),
        (
            "summary",
            "start-timeout-ms = 0\nsummary",
            "milliseconds from 1 to 600000",
        ),
        (
            "{{port:front}}', KIND",
            "{{prot:front}}', KIND",
            "did you mean 'port'?",
        ),
    ] {
        assert!(CHECKED.contains(from), "{from}");
        let path = bench.write("wrong.toml", &CHECKED.replace(from, to));
        assert_refused(&bench.run(&["describe", &path]), 2, expected);
    }
    let checked = CHECKED.replace("DIRECTORY", "/");
    for (role, expected) in [
        ("orgin", "role 'orgin': did you mean 'origin'?"),
        ("hopp", "role 'hopp': did you mean 'hop'?"),
    ] {
        let role = format!("role = '{role}'");
        let path = bench.write("slip.toml", &checked.replace("role = 'origin'", &role));
        assert_refused(&bench.run(&["describe", &path]), 2, expected);
    }
    let path = bench.write(
        "nowhere.toml",
        &CHECKED.replace("DIRECTORY", "/no/such/place"),
    );
    let expected = "'cwd': there is no directory '/no/such/place'";
    assert_refused(&bench.run(&["verify", &path]), 4, expected);
}

#[test]
fn a_path_has_the_time_that_its_file_gives_it_to_answer() {
    let bench = Bench::new();
    let path = shell_path(&bench, "late.toml", "sleep 1000; : {{port:front}}");
    let file = bench.directory.path().join("late.toml");
    let text = fs::read_to_string(&file).expect("written");
    fs::write(&file, format!("start-timeout-ms = 50\n{text}")).expect("ours");
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "start", "{failure}");
    let cause = failure["cause"].as_str().expect("text");
    assert!(
        cause.contains("did not answer '/health' within 0.05 s"),
        "{cause}"
    );
}

/// An origin with parameters of its own.
const PARAMETERS: &str = r#"
summary = 'An origin with parameters.'
front = '127.0.0.1:{{port:front}}'
[parameters]
delay = 0
stop = '--exit-with-stdin'
[[process]]
name = 'origin'
role = 'origin'
command = ['{{bin:http_baseline}}', '--listen=127.0.0.1:{{port:front}}', '{{parameter:stop}}',
           '--inject-delay-us={{parameter:delay}}']
version = ['{{bin:http_baseline}}', '--version']
stops-with-stdin = true
"#;

#[test]
fn swept_values_are_paths_of_their_own_and_recorded() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PARAMETERS);
    let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
    let swept = bench.run(&[&what[..], &SHORT, &["--sweep=delay=1,20"]].concat());
    assert_eq!(swept.status.code(), Some(0), "{}", text(&swept.stderr));
    let table = text(&swept.stdout);
    for name in ["direct", "own[delay=1]", "own[delay=20]"] {
        assert!(table.contains(&format!("| {name} ")), "{name}: {table}");
    }
    let recorded = manifest(&bench);
    assert_eq!(recorded["request"]["sweep"], json!(["delay=1,20"]));
    let info = path_info(&recorded, "own[delay=20]");
    let expected = json!({"delay": "20", "stop": "--exit-with-stdin"});
    assert_eq!(info["parameters"], expected);
    assert_eq!(info["definition"], PARAMETERS);
    let report = fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    assert!(report.contains("- parameter delay: 20"), "{report}");
    bench.assert_nothing_left();
}

#[test]
fn a_scenario_may_sweep_values_itself() {
    let bench = Bench::new();
    bench.write("own.toml", PARAMETERS);
    let scenario = |sweep: &str| {
        let text = format!(
            "question = 'Own?'\npaths = ['./own.toml']\n{sweep}\nendpoints = ['/small']\n\
             concurrency = [1]\nduration-ms = 1000\nblocks = 1\ncontrol = false\n"
        );
        bench.write("mine.toml", &text)
    };
    let path = scenario("sweep = { delay = [1, 20] }");
    let planned = |arguments: &[&str]| {
        let planned = bench.run(&[&["plan", &path], arguments].concat());
        assert_eq!(planned.status.code(), Some(0), "{planned:?}");
        text(&planned.stdout)
    };
    for (arguments, expected, not_expected) in [
        (&[][..], &["own[delay=1]", "own[delay=20]"][..], "own "),
        (&["--sweep=delay=5"], &["own[delay=5]"], "own[delay=1]"),
        (&["--set=delay=5"], &["own "], "own[delay=1]"),
        // Without the path, its parameter is of no use.
        (&["--path=direct"], &["direct"], "own"),
    ] {
        let planned = planned(arguments);
        for name in expected {
            assert!(planned.contains(name), "{arguments:?}: {planned}");
        }
        assert!(!planned.contains(not_expected), "{arguments:?}: {planned}");
    }
    for (sweep, expected) in [
        ("sweep = { dealy = [1] }", "'sweep': no parameter 'dealy'"),
        ("sweep = { delay = [] }", "expected values for 'delay'"),
        (
            "sweep = { delay = [1, 1] }",
            "expected each value once: '1'",
        ),
        ("sweep = { delay = [[]] }", "expected text, a number"),
    ] {
        let path = scenario(sweep);
        assert_refused(&bench.run(&["plan", &path]), 2, expected);
    }
}

#[test]
fn a_run_is_repeated_from_its_directory_alone() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PARAMETERS);
    let scenario = bench.write(
        "mine.toml",
        "question = 'Own?'\npaths = ['./own.toml']\nendpoints = ['/small']\nconcurrency = [1]\n\
         duration-ms = 1000\nblocks = 1\ncontrol = false\n",
    );
    let options = ["--set=delay=3", "--out=first"];
    let first = bench.run(&[&["run", &scenario], &SHORT[..], &options].concat());
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    for file in ["own.toml", "mine.toml"] {
        fs::remove_file(bench.directory.path().join(file)).expect("ours");
    }
    let said = text(&first.stdout);
    let (_, run) = said.rsplit_once("run directory: ").expect("named");
    let run = run.trim();
    let kept = bench.directory.path().join(run).join("raw/own.commands");
    let commands = fs::read_to_string(kept).expect("kept");
    assert!(commands.contains("--exit-with-stdin"), "{commands}");
    let again = bench.run(&["rerun", run, "--repeat-disturbed=0%", "--out=bench_results"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    let again = manifest(&bench);
    let info = path_info(&again, "own");
    assert_eq!(info["definition"], PARAMETERS);
    assert_eq!(info["parameters"]["delay"], "3");
    assert_eq!(again["scenarios"][0]["name"], "mine");
    assert_eq!(again["request"]["concurrency"], json!([2]));
    let refused = bench.run(&["rerun", &path]);
    assert_refused(&refused, 2, "is not a run: expected a directory");
    bench.assert_nothing_left();
}

#[test]
fn a_value_that_was_set_is_recorded_and_compared() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PARAMETERS);
    let measure = |set: &str| -> String {
        let what = ["run", "http-tunnel", "--endpoint=/small", "--path", &path];
        let out = format!("--out={set}");
        let set = format!("--set=delay={set}");
        let result = bench.run(&[&what[..], &SHORT, &[&set, &out]].concat());
        assert_eq!(result.status.code(), Some(0), "{}", text(&result.stderr));
        let said = text(&result.stdout);
        let (_, run) = said.rsplit_once("run directory: ").expect("named");
        run.trim().to_owned()
    };
    let (base, head) = (measure("1"), measure("20"));
    let compared = bench.run(&["compare", &base, &head]);
    let expected = "the definition of 'own' has changed: 'parameter delay = 1' in base, \
                    'parameter delay = 20' in head";
    assert!(text(&compared.stdout).contains(expected), "{compared:?}");
}

#[test]
fn mistakes_about_parameters_are_named() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PARAMETERS);
    let known = "'--set': no parameter 'dealy' in the paths 'direct', 'own' (did you mean \
                 'delay'?); there are: delay, stop";
    for (arguments, expected) in [
        (
            &["plan", "quick-look", "--path", &path, "--set=dealy=1"][..],
            known,
        ),
        (&["verify", &path, "--set=dealy=1"], known),
        (
            &["run", "quick-look", "--path", &path, "--sweep=x=1"],
            "'--sweep': no parameter 'x'",
        ),
        (
            &["plan", "quick-look", "--path", &path, "--set=delay"],
            "expected NAME=VALUE",
        ),
        (
            &["plan", "quick-look", "--path=direct", "--set=a=1"],
            "write [parameters] into",
        ),
        (
            &["probe", "cli-latency", "--set=a=1"],
            "'cli-latency' starts no paths",
        ),
    ] {
        assert_refused(&bench.run(arguments), 2, expected);
    }
    for (from, to, expected) in [
        (
            "delay = 0",
            "",
            "'{{parameter:delay}}': expected 'delay' in [parameters]",
        ),
        (
            "delay = 0",
            "delay = 0\nmode = 1",
            "parameter 'mode' is used nowhere",
        ),
        (
            "delay = 0",
            "delay = []",
            "expected text, a number, 'true' or 'false'",
        ),
        (
            "delay = 0",
            "delay = '{{dir}}'",
            "parameter 'delay': expected a value without '{{'",
        ),
    ] {
        let path = bench.write("wrong.toml", &PARAMETERS.replace(from, to));
        assert_refused(&bench.run(&["describe", &path]), 2, expected);
    }
    let described = text(&bench.run(&["describe", &path]).stdout);
    assert!(
        described.contains("delay=0, stop=--exit-with-stdin"),
        "{described}"
    );
    // A value reaches the program.
    let verified = bench.run(&["verify", &path, "--set=delay=soon"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(text(&verified.stdout).contains("soon"), "{verified:?}");
}
