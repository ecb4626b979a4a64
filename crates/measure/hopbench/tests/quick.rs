//! Goal: one command line is enough to measure a hop, and what can't be one is refused with what to
//! write. Method: the program, with an origin in a shell in the place of a hop.

mod support;

use std::fs;

use serde_json::Value;
use support::{bench::Bench, text};

/// A hop that answers by itself, and so needs nothing that isn't built here.
const HOP: &str = "GREETING='a b' sh -c 'test \"$GREETING\" = \"a b\" && test -f here.txt && \
                   exec {{bin:http_baseline}} --listen=127.0.0.1:{{port:front}} \
                   --exit-with-stdin --inject-delay-us=0 # {{port:origin}}'";

fn file(bench: &Bench, name: &str) -> String {
    fs::read_to_string(bench.directory.path().join(name)).unwrap_or_default()
}

#[test]
fn one_command_line_is_measured_and_saved_as_a_path_that_says_the_same() {
    let bench = Bench::new();
    bench.write("here.txt", "");
    let short = ["--duration-ms=60", "--warm-up-ms=0"];
    let quick = ["quick", HOP, "--blocks=1", "--save=my.toml"];
    let measured = bench.run(&[&quick[..], &short].concat());
    let (shown, told) = (text(&measured.stdout), text(&measured.stderr));
    assert_eq!(measured.status.code(), Some(0), "{told}");
    // The path has the name of the program, and is compared with the reference.
    assert!(
        shown.contains("| sh ") && shown.contains("RPS vs direct"),
        "{shown}"
    );
    let next = "wrote 'my.toml'; to measure it for longer, about ";
    assert!(told.contains(next), "{told}");
    let command = ": hopbench run quick-look --path ./my.toml\n";
    assert!(told.contains(command), "{told}");
    for trial in bench.trials() {
        let lengths = (trial["duration_ms"].as_u64(), trial["warm_up_ms"].as_u64());
        assert_eq!(lengths, (Some(60), Some(0)), "{trial}");
    }

    let manifest = fs::read_to_string(bench.run_dir().join("manifest.json")).expect("written");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let mut paths = manifest["paths"].as_array().expect("a list").iter();
    let path = paths.find(|path| path["name"] == "sh").expect("the hop");
    assert_eq!(path["definition"], Value::from(file(&bench, "my.toml")));
    assert!(!path["receipts"]["sh"].as_str().expect("text").is_empty());

    let verified = bench.run(&["verify", "quick-look", "--path=./my.toml"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(text(&verified.stdout).contains("my "), "{verified:?}");

    // Nothing is measured whose file could not be written afterwards.
    let again = bench.run(&["quick", HOP, "--blocks=1", "--save=my"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    let expected = "'my.toml': the file already exists";
    assert!(text(&again.stderr).contains(expected), "{again:?}");
    assert_eq!(bench.runs().len(), 1);
    bench.assert_nothing_left();
}

#[test]
fn the_next_command_keeps_what_was_swept_and_wrappers_name_nothing() {
    let bench = Bench::new();
    let hop = "env GREETING=a nice sh -c 'exec {{bin:http_baseline}} --exit-with-stdin \
               --listen=127.0.0.1:{{port:front}} --inject-delay-us={{parameter:us}} \
               # {{port:origin}} {{parameter:name}}'";
    let values = ["--sweep=us=0,1", "--set=name=a b"];
    let short = [
        "--blocks=1",
        "--duration-ms=60",
        "--warm-up-ms=0",
        "--save=my.toml",
    ];
    let measured = bench.run(&[&["quick", hop], &values[..], &short].concat());
    let (shown, told) = (text(&measured.stdout), text(&measured.stderr));
    assert_eq!(measured.status.code(), Some(0), "{told}");
    assert!(shown.contains("| sh[us=0] "), "{shown}");
    let next = "--path ./my.toml --sweep 'us=0,1'";
    let unquoted = next.replace("'us=0,1'", "us=0,1");
    assert!(told.contains(next) || told.contains(&unquoted), "{told}");
    bench.assert_nothing_left();
}

#[test]
fn a_script_is_named_and_told_apart_by_itself() {
    let bench = Bench::new();
    let server = "exec \"$1\" --listen=127.0.0.1:$2 --exit-with-stdin";
    bench.write("my-relay.sh", server);
    let hop = "sh my-relay.sh {{bin:http_baseline}} {{port:front}} {{port:origin}}";
    let measured = bench.run(&["quick", hop, "--blocks=1"]);
    assert_eq!(measured.status.code(), Some(0), "{measured:?}");
    let manifest = fs::read_to_string(bench.run_dir().join("manifest.json")).expect("written");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let mut paths = manifest["paths"].as_array().expect("a list").iter();
    let path = paths.find(|path| path["name"] == "my-relay.sh");
    let receipt = path.expect("the hop")["receipts"]["my-relay.sh"].clone();
    let receipt = receipt.as_str().expect("text");
    let is_digest = receipt.starts_with(|it: char| it.is_ascii_hexdigit());
    assert!(is_digest && receipt.contains("my-relay.sh"), "{receipt}");

    bench.write("my-relay.sh", &format!("{server} # changed"));
    let run = bench.run_dir();
    let run = run.to_str().expect("UTF-8");
    let again = bench.run(&["rerun", run, "--repeat-disturbed=0%"]);
    let told = text(&again.stderr);
    assert_eq!(again.status.code(), Some(0), "{told}");
    let said = "warning: version of 'my-relay.sh' on path 'my-relay.sh' '";
    assert!(told.contains(said), "{told}");
    bench.assert_nothing_left();
}

#[test]
fn a_hop_that_does_not_answer_is_told_before_anything_is_measured() {
    let bench = Bench::new();
    let hop = "sh -c 'echo no such option >&2; exit 3 # {{port:front}} {{port:origin}}'";
    let failed = bench.run(&["quick", hop, "--save=my.toml", "--name=mine"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let shown = text(&failed.stdout);
    assert!(
        shown.contains("mine") && shown.contains("exited with code 3"),
        "{shown}"
    );
    assert!(shown.contains("no such option"), "{shown}");
    let told = text(&failed.stderr);
    let expected = "error: 'mine' did not answer as expected; stdout says why";
    assert!(told.contains(expected), "{told}");
    assert_eq!(bench.runs().len(), 0);
    assert_eq!(file(&bench, "my.toml"), "");
    bench.assert_nothing_left();
}

#[test]
fn a_hop_that_takes_connections_and_never_answers_is_told_with_what_to_raise() {
    let bench = Bench::new();
    bench.write(
        "silent.py",
        "import socket, sys, time\n\
         listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
         time.sleep(60)\n",
    );
    let hop = "python3 silent.py {{port:front}} {{port:origin}}";
    for wrong in ["-1", "0", "600001", "soon"] {
        let refused = bench.run(&["quick", hop, &format!("--start-timeout-ms={wrong}")]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let told = text(&refused.stderr);
        assert!(told.contains("expected 1 to 600000"), "{told}");
    }
    let silent = bench.run(&["quick", hop, "--start-timeout-ms=900"]);
    assert_eq!(silent.status.code(), Some(1), "{silent:?}");
    let shown = text(&silent.stdout);
    for expected in [
        "did not answer '/health' within 0.9 s: no answer within ",
        "it takes connections: if its hop answers as late as that, or needs longer to start, raise \
         'start-timeout-ms'",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
    assert_eq!(bench.runs().len(), 0);
    bench.assert_nothing_left();
}

#[test]
fn what_can_not_be_a_hop_is_refused() {
    let bench = Bench::new();
    let both = "x --listen={{port:front}} --to={{port:origin}}";
    for (arguments, code, expected) in [
        (
            &["x --listen={{port:front}}"][..],
            2,
            "the command has no '{{port:origin}}'",
        ),
        (
            &["x --to={{port:origin}}"],
            2,
            "the command has no '{{port:front}}'",
        ),
        (&["x"], 2, "for example, hopbench quick 'socat "),
        (&["x | y"], 2, "'|': no shell reads the command"),
        (
            &[both, "--name=a/b"],
            2,
            "'--name': 'a/b': expected a name of letters",
        ),
        (
            &["sh {{port:front}} {{port:origin}}", "--name=direct"],
            2,
            "'direct' is the name of the path that all others",
        ),
        (
            &[both, "--save=none/my.toml"],
            2,
            "there is no directory 'none'",
        ),
        (
            &["no-such-hop {{port:front}} {{port:origin}}"],
            4,
            "'no-such-hop' is not installed",
        ),
        (
            &["./no-such-hop {{port:front}} {{port:origin}}"],
            2,
            "no-such-hop' does not exist",
        ),
    ] {
        let refused = bench.run(&[&["quick"], arguments].concat());
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}
