//! Goal: the page of a run opens from disk in a browser, complete, and without messages or
//! requests. Method: the reference run's records, and a headless Chromium that logs messages and
//! requests.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{bench::trials, bin, command, installed, output, text};
use tempfile::TempDir;

/// The records of the reference run, and the page made from them.
struct Page {
    directory: TempDir,
    file: PathBuf,
}

impl Page {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
        let runs = root.expect("two below").join("bench_results/reference");
        let run = fs::read_dir(runs).expect("there").next().expect("one");
        let run = run.expect("listed").path();
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
    let trials = trials(page.directory.path());
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
