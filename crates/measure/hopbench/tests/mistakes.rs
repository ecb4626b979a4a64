//! Goal: a mistake in a file or in an option is found before anything is started, costs exit code
//! 2, and is named with its place and with what to try. Method: the program itself, in an empty
//! directory.

mod support;

use support::{
    shell::{Shell, reference_run},
    text,
};

/// Returns the text of a path whose process has these lines, too.
fn path(front: &str, process: &str) -> String {
    format!(
        "summary = 'x'\nfront = '{front}'\n[[process]]\nname = 'x'\nrole = 'hop'\n\
         command = ['{{{{bin:http_baseline}}}}', '--listen=127.0.0.1:{{{{port:front}}}}']\n\
         version = ['{{{{bin:http_baseline}}}}', '--version']\n{process}"
    )
}

const FRONT: &str = "127.0.0.1:{{port:front}}";

/// Returns the text of a scenario with these fields, too.
fn scenario(fields: &str) -> String {
    format!("question = 'x?'\nconcurrency = [1]\nduration-ms = 10\nblocks = 1\n{fields}")
}

#[test]
fn a_run_that_is_not_there_is_a_mistake_of_whoever_named_it() {
    let shell = Shell::new();
    for command in ["report", "gate", "status"] {
        let nowhere = [
            "there are no runs below 'bench_results' yet",
            "'hopbench run'",
        ];
        shell.mistake(&[command], 2, &nowhere);
        let elsewhere = ["there are no runs below 'nope' yet", "'hopbench run'"];
        shell.mistake(&[command, "--out=nope"], 2, &elsewhere);
        shell.mistake(&[command, "nope"], 2, &["'nope' is not a run"]);
        let file = shell.write("file", "");
        shell.mistake(&[command, "--out", &file], 2, &["there are no runs below"]);
    }
    shell.mistake(&["history"], 2, &["there is no history", "--add"]);
}

#[test]
fn a_place_that_is_not_there_is_named_before_any_work() {
    let shell = Shell::new();
    let run = reference_run();
    let run = run.to_str().expect("a name");
    let expected = ["could not write '/nope/x'", "there is no directory '/nope'"];
    for arguments in [
        &["gate", run, "--junit=/nope/x"][..],
        &["gate", run, "--markdown=/nope/x"],
        &["ab", "smoke", "--a=.", "--b=.", "--gate", "--junit=/nope/x"],
        &["compare", run, run, "--html=/nope/x"],
        &["history", "--file=/nope/x", "--add", run],
    ] {
        shell.mistake(arguments, 2, &expected);
    }
    let expected = ["could not write 'a/b.toml'", "there is no directory 'a'"];
    shell.mistake(&["new", "path", "a/b"], 2, &expected);
    let written = text(&shell.hopbench(&["new", "path", "mine"]).stdout);
    let expected = "wrote 'mine.toml'; write your hop's command in line ";
    assert!(written.starts_with(expected), "{written}");
    assert!(
        written.ends_with(", then run 'hopbench verify mine.toml'\n"),
        "{written}"
    );
    let again = ["'mine.toml': the file already exists", "remove it"];
    shell.mistake(&["new", "path", "mine"], 2, &again);
    // There is no repository either.
    let expected = ["--a=nope", "'nope': expected a directory or a revision"];
    shell.mistake(&["ab", "smoke", "--a=nope", "--b=."], 2, &expected);
    let expected = ["expected a scenario, such as 'hopbench ab quick-look"];
    shell.mistake(&["ab", "--a=nope", "--b=."], 2, &expected);
    // 'run' and 'ab' take no paths in the place of scenarios.
    for (command, takes) in [("run", false), ("ab", false), ("verify", true)] {
        let help = text(&shell.hopbench(&[command, "--help"]).stdout);
        assert!(!help.contains("'verify' takes paths"), "{command}");
        assert_eq!(help.contains("scenarios, or of paths"), takes, "{command}");
    }
}

#[test]
fn a_name_that_no_file_can_have_is_refused() {
    let shell = Shell::new();
    let long = "x".repeat(65);
    let expected = ["expected a name of at most 64 bytes, found 65"];
    let hop = "x --listen={{port:front}} --to={{port:origin}}";
    shell.mistake(&["quick", hop, &format!("--name={long}")], 2, &expected);
    shell.mistake(&["new", "path", &long], 2, &expected);
    let path = "summary = 'x'\nfront = '127.0.0.1:{{port:front}}'\n[[process]]\nname = 'NAME'\n\
                role = 'hop'\ncommand = ['x', '{{port:front}}']\nversion = ['x']\n";
    let file = shell.write("long-process.toml", &path.replace("NAME", &long));
    shell.mistake(&["verify", &file], 2, &expected);
    let file = shell.write(&format!("{long}.toml"), path);
    let expected = ["named after its file: expected at most 64 bytes, found 65"];
    shell.mistake(&["verify", &file], 2, &expected);
}

#[test]
fn a_misspelt_program_is_a_mistake_and_a_missing_one_is_not() {
    let shell = Shell::new();
    for (program, code, expected) in [
        ("{{bin:http_baselin}}", 2, "did you mean 'http_baseline'?"),
        ("{{bin:zzz}}", 4, "'zzz' is not in"),
        ("/nope/x", 2, "'/nope/x' does not exist"),
    ] {
        for field in ["command", "version"] {
            let text = path(FRONT, "");
            let (begin, end) = text.split_once(&format!("{field} = ['")).expect("there");
            let (_, end) = end.split_once('\'').expect("quoted");
            let text = format!("{begin}{field} = ['{program}'{end}");
            let file = shell.write("hop.toml", &text);
            for command in ["run", "verify"] {
                shell.mistake(&[command, "smoke", "--path", &file], code, &[expected]);
            }
        }
    }
}

#[test]
fn an_address_that_nobody_can_serve_is_found_in_the_file() {
    let shell = Shell::new();
    let front = "127.0.0.1:{{port:frnt}}";
    let of_admin = |admin: &str| path(FRONT, &format!("admin = '{admin}'\n"));
    for (text, expected) in [
        (
            path(front, ""),
            "'front': no process uses '{{port:frnt}}' (did you mean '{{port:front}}'?)",
        ),
        (
            of_admin(front),
            "process 'x': 'admin': no process uses '{{port:frnt}}' (did you mean",
        ),
        (
            path(FRONT, "").replace(
                "'--listen",
                "'{{port:orgin}}', '{{port:origin}}', '--listen",
            ),
            "'{{port:orgin}}' is used only once (did you mean '{{port:origin}}'?)",
        ),
        (
            of_admin("foo"),
            "process 'x': 'admin': 'foo': expected 'HOST:PORT' or 'unix:PATH'",
        ),
        (
            of_admin("unix:{{socket:s}}"),
            "'admin': no process uses '{{socket:s}}'; write it in a 'command'",
        ),
    ] {
        let file = shell.write("hop.toml", &text);
        for command in ["verify", "describe"] {
            shell.mistake(&[command, &file], 2, &[&file, expected]);
        }
    }
}

#[test]
fn a_role_is_a_word() {
    let shell = Shell::new();
    for role in ["my role!", "a,b", "<b>"] {
        let text = path(FRONT, "").replace("'hop'", &format!("'{role}'"));
        let file = shell.write("hop.toml", &text);
        let expected = ["process 'x': role '", role, "letters, digits, '-' and '_'"];
        shell.mistake(&["verify", &file], 2, &expected);
    }
}

#[test]
fn a_scenario_file_is_named_with_what_is_wrong_in_it() {
    let shell = Shell::new();
    for (fields, expected) in [
        (
            "paths = ['nope']\nendpoints = ['/small']",
            "unknown path 'nope'",
        ),
        (
            "paths = ['tag:rapce']\nendpoints = ['/small']",
            "did you mean 'rapace'?",
        ),
        (
            "paths = ['smoke']\nendpoints = ['/small']",
            "'smoke' is a scenario",
        ),
        (
            "paths = ['direct']\nendpoints = ['/small']\nreference = 'dirct'",
            "'reference': unknown path 'dirct' (did you mean 'direct'?)",
        ),
        (
            "paths = ['direct']\nendpoints = ['/small']\nreference = 'tag:tunnel'",
            "'reference': expected one path, 'tag:tunnel' names",
        ),
        (
            "paths = ['direct']\nendpoints = ['/smal']",
            "unknown endpoint '/smal': expected one of",
        ),
    ] {
        shell.write("s.toml", &scenario(fields));
        let expected = ["error: ./s.toml: ", expected];
        shell.mistake(&["plan", "./s.toml"], 2, &expected);
    }
    let expected = ["./s.toml: ", "(did you mean '/small'?)"];
    shell.mistake(&["plan", "./s.toml"], 2, &expected);
    // What the command line names is not the file's mistake.
    let refused = shell.hopbench(&["plan", "./s.toml", "--endpoint=/larg"]);
    let errors = text(&refused.stderr);
    assert!(
        errors.starts_with("error: unknown endpoint '/larg'"),
        "{errors}"
    );
    assert!(errors.contains("(did you mean '/large'?)"), "{errors}");
}

#[test]
fn a_definition_of_another_kind_is_named_as_what_it_is() {
    let shell = Shell::new();
    shell.write("base.toml", &path(FRONT, ""));
    shell.write("broken.toml", &path(FRONT, "nme = 'x'\n"));
    shell.write(
        "s.toml",
        &scenario("paths = ['direct']\nendpoints = ['/small']"),
    );
    let run = reference_run();
    let run = run.to_str().expect("a name");
    for (arguments, expected) in [
        (
            &["run", "./base.toml"][..],
            "'./base.toml' is a path; expected a scenario; use '--path'",
        ),
        (
            &["run", "./broken.toml"],
            "'./broken.toml' is a path; expected",
        ),
        (&["run", "ring"], "'ring' is a path; expected a scenario"),
        (
            &["run", "smoke", "--path", "smoke"],
            "'smoke' is a scenario; expected a path",
        ),
        (
            &["run", "smoke", "--path", "./s.toml"],
            "'./s.toml' is a scenario; expected a path",
        ),
        (
            &["gate", run, "--policy", "./s.toml"],
            "'./s.toml' is a scenario; expected a gate",
        ),
        (
            &["profile", "smoke"],
            "'smoke' is a scenario; expected a path",
        ),
        (
            &["self-test", "--case", "ring"],
            "'ring' is a path; expected a case",
        ),
        (&["verify", "default"], "'default' is a gate"),
    ] {
        shell.mistake(arguments, 2, &[expected]);
    }
    // A file that is broken is still told what is wrong with it where its kind is right.
    let expected = ["unknown field 'nme' (did you mean 'name'?)"];
    shell.mistake(&["run", "smoke", "--path", "./broken.toml"], 2, &expected);
    let unknown = shell.hopbench(&["verify", "nope"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    let errors = "error: 'nope' is neither a scenario nor a path; see 'hopbench list'\n";
    assert_eq!(text(&unknown.stderr), errors);
    let expected = ["'smok' is neither a scenario nor a path (did you mean 'smoke'?)"];
    shell.mistake(&["verify", "smok"], 2, &expected);
}

#[test]
fn an_option_is_named_and_not_a_scenario_that_nobody_chose() {
    let shell = Shell::new();
    for (option, expected) in [
        ("--concurrency=0", "expected 1 to 16384"),
        ("--concurrency=-1", "expected 1 to 16384"),
        ("--rate=0", "expected 1 to 1000000"),
        ("--duration-ms=1", "expected 100 to 60000"),
        ("--load-threads=0", "expected 1 to 1024"),
        ("--request-timeout-ms=0", "expected 1 to 600000"),
    ] {
        let (name, value) = option.split_once('=').expect("a value");
        let refused = shell.hopbench(&["profile", "ring", option]);
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{option}: {errors}");
        let begins = format!("error: invalid value '{value}' for '{name} <");
        assert!(errors.starts_with(&begins), "{option}: {errors}");
        assert!(errors.contains(expected), "{option}: {errors}");
        assert!(!errors.contains("scenario"), "{option}: {errors}");
    }
    let arguments = ["profile", "ring", "--rate=1", "--duration-ms=100"];
    let expected = [
        "error: '--rate': 1 per second",
        "in 100 ms ('--duration-ms')",
    ];
    shell.mistake(&arguments, 2, &expected);
}

#[test]
fn types_are_called_by_words_of_the_file() {
    let shell = Shell::new();
    for (line, expected) in [
        ("paths = 'direct'", "text \"direct\", expected a list"),
        ("paths = [5]", "whole number '5', expected text"),
        ("rates = ['5']", "expected a whole number"),
        (
            "rates = [-5]",
            "expected a whole number from 0 to 4294967295",
        ),
        ("knee-p99-ms = 'x'", "expected a number"),
        ("control = 1", "expected 'true' or 'false'"),
        ("blok = 1", "unknown field 'blok' (did you mean 'blocks'?)"),
    ] {
        let file = shell.write("s.toml", &scenario(line));
        let refused = shell.hopbench(&["plan", &file]);
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line}: {errors}");
        assert!(errors.contains(expected), "{line}: {errors}");
        for foreign in ["`", "sequence", "i128", "u32", "f64"] {
            assert!(!errors.contains(foreign), "{line}: {errors}");
        }
    }
}
