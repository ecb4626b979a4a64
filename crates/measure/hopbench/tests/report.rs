//! Goal: the page of a run opens from disk in a browser, complete, and without messages or
//! requests; damaged records lose no report. Method: the reference run's records, and a headless
//! Chromium that logs messages and requests.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use hopbench_analysis::{record::Trial, repeats};
use serde_json::Value;
use support::{
    bench::trials,
    bin, command, installed, output,
    shell::{Shell, reference_run},
    text,
};
use tempfile::TempDir;

/// Returns the trials of a run that count: a block that others disturbed may have been repeated.
fn counted(run: &Path) -> Vec<Value> {
    let records = fs::read_to_string(run.join("trials.jsonl")).expect("there");
    let read: Result<Vec<Trial>, _> = records.lines().map(Trial::read).collect();
    let counted = repeats::counted(read.expect("trials"));
    let numbers: BTreeSet<u64> = counted.iter().map(|it| it.planned.trial.into()).collect();
    let mut trials = trials(run);
    trials.retain(|trial| {
        trial["trial"]
            .as_u64()
            .is_some_and(|it| numbers.contains(&it))
    });
    trials
}

/// The records of the reference run, and the page made from them.
struct Page {
    directory: TempDir,
    file: PathBuf,
}

impl Page {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
        let runs = root.expect("two below").join("bench_results/reference");
        let runs = fs::read_dir(runs).expect("there");
        let mut runs = runs.map(|run| run.expect("listed").path());
        let run = runs.find(|run| run.join("overview-http-tunnel.svg").is_file());
        let run = run.expect("one");
        let directory = TempDir::new().expect("a directory");
        for name in ["manifest.json", "plan.json", "trials.jsonl"] {
            fs::copy(run.join(name), directory.path().join(name)).expect(name);
        }
        let made = output(command(bin("hopbench")).arg("report").arg(directory.path()));
        assert_eq!(made.status.code(), Some(0), "{made:?}");
        let file = directory.path().join("report.html");
        Self { directory, file }
    }

    /// Opens the page in a browser with a temporary profile. Returns its stderr and stdout.
    fn browse(&self, browser: &Path, arguments: &[&str]) -> (String, String) {
        let mut browser = command(browser);
        browser
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--enable-logging=stderr",
            ])
            .arg(format!(
                "--user-data-dir={}",
                self.directory.path().join("profile").display()
            ))
            .args(arguments)
            .arg(format!("file://{}", self.file.display()));
        let shown = output(&mut browser);
        assert!(shown.status.success(), "{shown:?}");
        (text(&shown.stderr), text(&shown.stdout))
    }
}

#[test]
fn the_page_is_small_and_complete() {
    const BYTES_MAX: u64 = 2 << 20;
    let page = Page::new();
    assert!(fs::metadata(&page.file).expect("written").len() < BYTES_MAX);
    let html = fs::read_to_string(&page.file).expect("text");
    let trials = counted(page.directory.path());
    for trial in &trials {
        let number = trial["trial"].as_u64().expect("a number");
        let row = format!("<th scope=\"row\">{number}</th>");
        assert!(html.contains(&row), "{row}");
    }
    // The shares have a mark for each cell of a path other than the reference, and for each block.
    let manifest = fs::read_to_string(page.directory.path().join("manifest.json")).expect("there");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let reference = &manifest["scenarios"][0]["reference"];
    let others: Vec<&Value> = trials
        .iter()
        .filter(|trial| trial["path"] != *reference)
        .collect();
    let key = |trial: &Value| ["path", "endpoint", "concurrency"].map(|it| trial[it].to_string());
    let cells: BTreeSet<[String; 3]> = others.iter().map(|trial| key(trial)).collect();
    let count = |mark: &str| html.matches(&format!("<circle class=\"{mark}\"")).count();
    assert_eq!(count("point"), cells.len());
    assert_eq!(count("dot"), others.len());
    // The mark of a cell says the same as the README.
    let readme = include_str!("../../../../README.md");
    let row = readme.lines().find(|line| line.starts_with("| ring |"));
    let shares = row.expect("a row of the table").split('|').map(str::trim);
    let share = shares.skip(2).find(|share| share.ends_with('%'));
    let share = share.expect("a share").trim_start_matches(['≈', '?', ' ']);
    let title = format!("<title>ring: {share} (");
    assert!(html.contains(&title), "{title}");
}

#[test]
fn a_browser_shows_the_page_silently() {
    let Some(browser) = installed("chromium") else {
        return;
    };
    let page = Page::new();
    let log = page.directory.path().join("net.json");
    let (said, dom) = page.browse(
        &browser,
        &["--dump-dom", &format!("--log-net-log={}", log.display())],
    );
    assert!(!said.contains(":CONSOLE"), "{said}");
    assert!(dom.contains("What does a hop cost?"), "{dom}");

    // The browser itself may send requests; the page may not.
    let log: Value = serde_json::from_slice(&fs::read(log).expect("written")).expect("JSON");
    let events = log["events"].as_array().expect("a list");
    let of_page = events.iter().filter(|event| {
        let initiator = event["params"]["initiator"].as_str().unwrap_or_default();
        let url = event["params"]["url"].as_str().unwrap_or_default();
        initiator.starts_with("file:") || initiator == "null" || url.contains("report.html")
    });
    let asked: Vec<&Value> = of_page
        .filter(|event| {
            let url = event["params"]["url"].as_str().unwrap_or_default();
            url.starts_with("http")
        })
        .collect();
    assert!(asked.is_empty(), "{asked:?}");

    // Everything written was parsed: no unclosed element has swallowed anything.
    let html = fs::read_to_string(&page.file).expect("text");
    for part in ["<circle", "<rect", "<table", "<details", "class=\"point\""] {
        let [written, parsed] = [&html, &dom].map(|it| it.matches(part).count());
        assert_eq!(written, parsed, "{part}");
        assert!(written > 0, "{part}");
    }
}

#[test]
fn a_browser_takes_pictures_of_the_page() {
    let Some(browser) = installed("chromium") else {
        return;
    };
    let page = Page::new();
    // The pictures are for people to look at.
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, arguments) in [
        (
            "light",
            [
                "--window-size=1400,2400",
                "--blink-settings=preferredColorScheme=1",
            ],
        ),
        (
            "dark",
            [
                "--window-size=1400,2400",
                "--blink-settings=preferredColorScheme=0",
            ],
        ),
        (
            "phone",
            [
                "--window-size=400,2400",
                "--blink-settings=preferredColorScheme=1",
            ],
        ),
    ] {
        let picture = pictures.join(format!("report-{name}.png"));
        let screenshot = format!("--screenshot={}", picture.display());
        page.browse(&browser, &[arguments[0], arguments[1], &screenshot]);
        let bytes = fs::read(&picture).expect("a picture");
        assert!(
            bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000,
            "{name}"
        );
    }
}

/// Copies the reference run, and says in `state.json` that it has finished.
fn copy_of_reference(shell: &Shell, name: &str) -> String {
    let run = shell.directory.path().join(name);
    fs::create_dir(&run).expect("fresh");
    for name in ["manifest.json", "plan.json", "trials.jsonl"] {
        fs::copy(reference_run().join(name), run.join(name)).expect(name);
    }
    let state = "{\"pid\":1,\"phase\":\"finished\",\"trial\":0}";
    fs::write(run.join("state.json"), state).expect("writable");
    run.display().to_string()
}

#[test]
fn a_page_that_nothing_can_show_is_named() {
    let shell = Shell::new();
    let run = copy_of_reference(&shell, "run");
    let mut report = command(bin("hopbench"));
    report
        .current_dir(shell.directory.path())
        .args(["report", "--open", &run]);
    for display in ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"] {
        report.env_remove(display);
    }
    let result = output(&mut report);
    assert_eq!(result.status.code(), Some(4), "{result:?}");
    let errors = text(&result.stderr);
    let said = [
        "the report is written, but there is no display for a browser",
        "report.html' yourself",
    ];
    assert!(said.iter().all(|part| errors.contains(part)), "{errors}");
    // Whoever wants the page needs no tables, but its place.
    let told = text(&result.stdout);
    assert!(
        told.contains("/run/report.html\n") && !told.contains("| "),
        "{told}"
    );
}

#[test]
fn a_report_is_not_replaced_by_one_of_nothing() {
    let shell = Shell::new();
    let run = copy_of_reference(&shell, "run");
    let file = |name: &str| format!("{run}/{name}");
    assert!(shell.hopbench(&["report", &run]).status.success());
    let before = fs::read(file("REPORT.md")).expect("written");
    fs::write(file("trials.jsonl"), "").expect("writable");
    let finished = fs::read_to_string(file("state.json")).expect("there");
    let running = finished
        .replace("finished", "running")
        .replace(":0}", ":3}");
    for state in [&finished, &running] {
        fs::write(file("state.json"), state).expect("writable");
        for command in [
            &["report", &run][..],
            &["gate", &run],
            &["compare", &run, &run],
        ] {
            shell.mistake(command, 4, &["trials.jsonl' has no records", "restore"]);
        }
    }
    fs::write(file("state.json"), &finished).expect("writable");
    fs::remove_file(file("trials.jsonl")).expect("there");
    shell.mistake(&["report", &run], 4, &["trials.jsonl' has no records"]);
    assert_eq!(fs::read(file("REPORT.md")).expect("there"), before);
    // A run that was interrupted in its first trial has none.
    fs::write(file("trials.jsonl"), "").expect("writable");
    let interrupted = finished.replace("finished", "interrupted");
    fs::write(file("state.json"), interrupted).expect("writable");
    let made = shell.hopbench(&["report", &run]);
    assert!(made.status.success(), "{made:?}");
    assert!(text(&made.stdout).contains("not complete"), "{made:?}");
}

#[test]
fn a_line_that_is_cut_off_is_left_out_with_a_warning() {
    let shell = Shell::new();
    let run = copy_of_reference(&shell, "run");
    let file = format!("{run}/trials.jsonl");
    let whole = fs::read_to_string(&file).expect("there");
    let lines = whole.lines().count();
    let cut = &whole.as_bytes()[..whole.len() - 10];
    let expected = format!("trials.jsonl': line {lines} is cut off and was left out");
    let warned_by = |command: &[&str]| {
        let warned = text(&shell.hopbench(command).stderr);
        assert!(warned.contains("warning: '"), "{command:?}: {warned}");
        assert!(warned.contains(&expected), "{command:?}: {warned}");
    };
    fs::write(&file, cut).expect("writable");
    warned_by(&["gate", &run]);
    warned_by(&["compare", &run, &run]);
    warned_by(&["history", "--add", &run]);
    // Within a character, too.
    fs::write(&file, [cut, b"\xc3"].concat()).expect("writable");
    warned_by(&["report", &run]);
    // A last line without its end is whole if it is a record.
    fs::write(&file, whole.trim_end()).expect("writable");
    let made = shell.hopbench(&["report", &run]);
    assert!(made.stderr.is_empty(), "{made:?}");
    // A line in the middle is damaged, and not cut off.
    let damaged = whole.replacen('\n', "\n}x\n", 1);
    fs::write(&file, damaged).expect("writable");
    let refused = shell.hopbench(&["report", &run]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let errors = text(&refused.stderr);
    let expected = "trials.jsonl', line 2: expected value, at column 1\n";
    assert!(errors.ends_with(expected), "{errors}");
}

#[test]
fn a_damaged_history_is_named_once_with_its_line() {
    let shell = Shell::new();
    shell.write("history.jsonl", "x\n");
    let refused = shell.hopbench(&["history", "--file=history.jsonl"]);
    let errors = text(&refused.stderr);
    let expected = "error: 'history.jsonl', line 1: expected value, at column 1\n";
    assert_eq!(errors, expected);
}

#[test]
fn what_was_asked_is_printed_even_if_the_report_cannot_be_written() {
    let shell = Shell::new();
    let run = copy_of_reference(&shell, "run");
    // Not even root writes a file in place of a directory.
    fs::create_dir(format!("{run}/REPORT.md.new")).expect("fresh");
    for (format, begins) in [
        ("md", "#"),
        ("html", "<!"),
        ("csv", ""),
        ("json", "{"),
        ("perf", ""),
    ] {
        let made = shell.hopbench(&["report", &run, "--format", format]);
        let (out, errors) = (text(&made.stdout), text(&made.stderr));
        assert_eq!(made.status.code(), Some(0), "{format}: {errors}");
        assert!(
            !out.is_empty() && out.starts_with(begins),
            "{format}: {out}"
        );
        assert!(errors.starts_with("warning: could not write '"), "{errors}");
    }
    // Without a format, the files themselves are asked for.
    let made = shell.hopbench(&["report", &run]);
    assert_eq!(made.status.code(), Some(4), "{made:?}");
    let out = text(&made.stdout);
    assert!(out.contains("run directory: "), "{out}");
    assert!(!out.contains("report: "), "{out}");
}

#[test]
fn figures_are_printed_for_other_tools() {
    let shell = Shell::new();
    let run = reference_run();
    let run = run.to_str().expect("text");
    let printed = |tool: &str| {
        let printed = shell.hopbench(&["report", "--as", tool, run]);
        assert!(printed.status.success(), "{}", text(&printed.stderr));
        text(&printed.stdout)
    };
    let bmf: Value = serde_json::from_str(&printed("bmf")).expect("JSON");
    let throughput = &bmf["http-tunnel direct /small c=8"]["throughput"]["value"];
    assert!(throughput.as_f64() > Some(0.0), "{bmf:#}");
    let families = printed("prometheus");
    assert!(families.starts_with("# HELP hopbench_requests_per_second "));
    let log = printed("hdr");
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"));
    let intervals = log.lines().filter(|line| line.starts_with("Tag="));
    assert_eq!(intervals.count(), counted(Path::new(run)).len());
    shell.mistake(
        &["report", "--as=seconds", run],
        2,
        &["no load of this run has figures of each second"],
    );
}
