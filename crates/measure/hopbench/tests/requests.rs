//! Goal: a scenario says what to ask, how often, after what, and what must come back; a path may
//! answer otherwise. Method: short real runs on the origin, which lives behind no hop.

mod support;

use serde_json::Value;
use support::{
    bench::{Bench, trials},
    text,
};

/// Makes a path to the origin alone, with more tables at its end.
fn path(more: &str) -> String {
    format!(
        "summary = 'the origin'\nfront = '127.0.0.1:{{{{port:front}}}}'\n\
         describe = ['{{{{bin:http_baseline}}}}', '--describe']\n{more}\n\
         [[process]]\nname = 'origin'\nrole = 'origin'\n\
         command = ['{{{{bin:http_baseline}}}}', '--listen=127.0.0.1:{{{{port:front}}}}', \
         '--admin=unix:{{{{socket:admin}}}}', '--exit-with-stdin']\n\
         version = ['{{{{bin:http_baseline}}}}', '--version']\nadmin = 'unix:{{{{socket:admin}}}}'\n\
         stops-with-stdin = true\n"
    )
}

fn scenario(paths: &str, rest: &str) -> String {
    format!(
        "question = 'Does it do as it says?'\nreference = './alone.toml'\npaths = [{paths}]\n\
         concurrency = [2]\nblocks = 1\ncontrol = false\n{rest}\n"
    )
}

const REQUESTS: &str = "
[[request]]
name = 'sizes'
target = '/bytes/{n}'
range = [1, 300]
order = 'once'
weight = 3

[[request]]
name = 'missing'
target = '/no-such-page'
expect = { status = 404 }
headers = { x-tenant = ['a', 'b'] }
";

#[test]
fn a_mix_is_prepared_counted_and_judged_by_kind() {
    let bench = Bench::new();
    bench.write("alone.toml", &path(""));
    let counted = "[[counter]]\nname = 'connections_accepted'\nlabel = 'accepted'\n\
                   per = ['trial', 'request']\nhelp = 'connections from clients'\n";
    bench.write("counted.toml", &path(counted));
    let prepare = "
requests = 400
warm-up = 'none'

[[prepare]]
name = 'fill'
requests = 50
of = ['missing']
counters-at-least = { connections_accepted = 1 }
";
    let text_of = scenario("'./counted.toml'", &format!("{prepare}{REQUESTS}"));
    bench.write("mix.toml", &text_of);
    let output = bench.run(&["run", "./mix.toml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for trial in trials(&bench.run_dir()) {
        let load = &trial["load"];
        assert_eq!(
            (&load["good"], &load["requests"]),
            (&400.into(), &400.into()),
            "{trial}"
        );
        let kinds = load["by_request"].as_array().expect("a list");
        let good: Vec<u64> = kinds
            .iter()
            .filter_map(|kind| kind["good"].as_u64())
            .collect();
        assert_eq!(good, [300, 100], "{trial}");
        assert_eq!(trial["prepared"][0]["good"], 50, "{trial}");
        let counters = &trial["prepared"][0]["counters"]["origin"];
        assert!(
            counters["connections_accepted"].as_u64() > Some(0),
            "{trial}"
        );
        assert_eq!(trial["timing"]["warm_up_ms"], 0.0, "{trial}");
    }
    let report = std::fs::read_to_string(bench.run_dir().join("REPORT.md")).expect("written");
    for part in [
        "sizes+missing",
        "- request 'sizes': /bytes/1 … /bytes/300 (300 once each), weight 3",
        "- preparation 'fill': 50 requests on 1 connection, of 'missing'",
        "| accepted |",
        "accepted: connections from clients.",
    ] {
        assert!(report.contains(part), "'{part}' is missing: {report}");
    }
    bench.assert_nothing_left();
}

#[test]
fn a_path_may_be_right_to_answer_otherwise() {
    let bench = Bench::new();
    bench.write("alone.toml", &path(""));
    let request = "duration-ms = 60\n[[request]]\nname = 'page'\ntarget = '/small'\n\
                   expect = { status = 404 }\n";
    bench.write("wrong.toml", &scenario("'./alone.toml'", request));
    let output = bench.run(&["run", "./wrong.toml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let trial: Value = trials(&bench.run_dir()).remove(0);
    let failure = &trial["outcome"]["failed"];
    assert_eq!(failure["kind"], "wrong-answer", "{trial}");
    let cause = failure["cause"].as_str().expect("text");
    assert!(
        cause.contains("request 'page': GET /small: status 200 instead of 404"),
        "{cause}"
    );

    bench.write(
        "right.toml",
        &path("[expect.page]\nstatus = 200\nlength-bytes = 2\n"),
    );
    let verified = bench.run(&["verify", "./wrong.toml", "--path=./right.toml"]);
    let said = text(&verified.stdout);
    let of = |name: &str| {
        said.lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned)
    };
    assert!(
        of("right").is_some_and(|line| line.ends_with("ok")),
        "{said}"
    );
    assert!(
        of("alone").is_some_and(|line| line.contains("FAILED")),
        "{said}"
    );
}

#[test]
fn what_a_preparation_does_not_do_fails_the_trial() {
    let bench = Bench::new();
    let counted = "[[counter]]\nname = 'connections_accepted'\nhelp = 'connections'\n";
    bench.write("alone.toml", &path(counted));
    let rest = "duration-ms = 60\n[[prepare]]\nname = 'fill'\nrequests = 3\n\
                counters-at-least = { connections_accepted = 1_000_000 }\n\
                [[request]]\nname = 'page'\ntarget = '/small'\n";
    bench.write("late.toml", &scenario("'./alone.toml'", rest));
    let output = bench.run(&["run", "./late.toml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let trial: Value = trials(&bench.run_dir()).remove(0);
    let failure = &trial["outcome"]["failed"];
    assert_eq!(failure["kind"], "preparation", "{trial}");
    let cause = failure["cause"].as_str().expect("text");
    assert!(
        cause.contains("'fill': 'connections_accepted' grew by"),
        "{cause}"
    );
}

#[test]
fn a_counter_that_nobody_serves_is_named() {
    let bench = Bench::new();
    let declared = "[[counter]]\nname = 'hop_hits'\nhelp = 'answers from memory'\n";
    bench.write("alone.toml", &path(declared));
    let verified = bench.run(&["verify", "./alone.toml"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let said = text(&verified.stdout);
    assert!(
        said.contains("declares the counter 'hop_hits', but no process serves it"),
        "{said}"
    );
}

#[test]
fn stages_are_recorded_second_by_second() {
    let bench = Bench::new();
    bench.write("alone.toml", &path(""));
    let rest = "endpoints = ['/small']\n\
                [[stage]]\nname = 'steady'\nduration-ms = 2000\nrate = 100\n\
                [[stage]]\nduration-ms = 1000\nrate = 300\nchange = 'ramp'\n\
                [recovery]\nbaseline = 'steady'\nseconds = 1\n";
    bench.write("staged.toml", &scenario("'./alone.toml'", rest));
    let output = bench.run(&["run", "./staged.toml", "--format=json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let trial: Value = trials(&bench.run_dir()).remove(0);
    let levels: Vec<_> = trial["stages"].as_array().expect("a list").iter().collect();
    assert_eq!(
        (&levels[1]["from"], &levels[1]["to"]),
        (&100.0.into(), &300.0.into())
    );
    assert_eq!(
        (&trial["staged"], &trial["rate_rps"]),
        (&true.into(), &300.into())
    );
    let load = &trial["load"];
    let due = |stage: &Value| {
        let counts = ["requests", "dropped"].map(|what| stage[what].as_u64().expect("a number"));
        counts.iter().sum::<u64>()
    };
    let stages = load["stages"].as_array().expect("a list");
    assert_eq!(
        stages.iter().map(due).collect::<Vec<_>>(),
        [200, 200],
        "{trial}"
    );
    assert!(
        load["seconds"].as_array().expect("a list").len() >= 3,
        "{trial}"
    );
    let seconds = trial["seconds"].as_array().expect("a list");
    assert!(seconds.len() >= 2, "{trial}");
    for second in seconds {
        assert!(second["rss_kib"].as_u64() > Some(0), "{second}");
        assert!(second["descriptors"].as_u64() > Some(3), "{second}");
        assert!(second["cpu_us"]["origin"].as_f64() >= Some(0.0), "{second}");
    }
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let parts = json["parts"].as_array().expect("a list");
    let names: Vec<_> = parts
        .iter()
        .map(|part| (&part["part"], &part["name"]))
        .collect();
    assert_eq!(names[1], (&"stage".into(), &"2".into()), "{json}");
    assert!(json["timelines"][0]["disruptions"].is_array(), "{json}");
    let page = std::fs::read_to_string(bench.run_dir().join("report.html")).expect("written");
    for part in ["Over time", "Stages", "Recovery", "up to 300/s"] {
        assert!(page.contains(part), "'{part}' is missing");
    }
    bench.assert_nothing_left();
}

#[test]
fn mistakes_in_requests_are_named() {
    let bench = Bench::new();
    bench.write("alone.toml", &path(""));
    let request = "[[request]]\nname = 'a'\ntarget = '/small'\n";
    let cases = [
        (
            "duration-ms = 9\nendpoints = ['/small']\n[[request]]\nname = 'a'\ntarget = '/'",
            "'endpoints': expected either",
        ),
        ("duration-ms = 9", "expected 'endpoints', or [[request]]"),
        (request, "expected 'duration-ms', 'requests' or [[stage]]"),
        (
            &format!("duration-ms = 9\nrequests = 9\n{request}"),
            "'requests': expected either",
        ),
        (
            &format!("limit-ms = 9\nduration-ms = 9\n{request}"),
            "'limit-ms': expected 'requests'",
        ),
        (
            &format!("duration-ms = 9\n{request}weight = 0"),
            "request 'a': 'weight'",
        ),
        (
            &format!("duration-ms = 9\n{request}range = [1, 2]"),
            "request 'a': 'range'",
        ),
        (
            &format!("duration-ms = 9\n{request}order = 'once'"),
            "request 'a': 'order'",
        ),
        (
            &format!("duration-ms = 9\n{request}body-file = 'none.json'"),
            "could not read 'none.json'",
        ),
        (
            &format!("duration-ms = 9\n{request}body = 'a'\nbody-bytes = 2"),
            "at most one of 'body'",
        ),
        (
            &format!("duration-ms = 9\n{request}expect = {{ status = 7 }}"),
            "'status': expected 100",
        ),
        (
            &format!("duration-ms = 9\n{request}expect = {{ sha256 = 'x' }}"),
            "'sha256': expected 64",
        ),
        (
            &format!("duration-ms = 9\n{request}headers = {{ 'a b' = 'c' }}"),
            "'a b' is not the name",
        ),
        (
            &format!(
                "duration-ms = 9\n{request}[[prepare]]\nname = 'p'\nrequests = 1\n\
                      paths = ['another']"
            ),
            "expected names of the scenario's paths, found 'another'",
        ),
        (
            &format!("duration-ms = 9\n{request}headers = {{ a = 3 }}"),
            "headers",
        ),
        (
            "duration-ms = 9\n[[request]]\nname = 'a'\ntarget = '/{n}'",
            "expected 'range'",
        ),
        (
            &format!("duration-ms = 9\n{request}{request}"),
            "request 'a' is repeated",
        ),
        (
            &format!("duration-ms = 9\n{request}{request}method = 'DELETE'"),
            "is repeated",
        ),
        (
            &format!("duration-ms = 9\n{request}method = 'DELETE'"),
            "'/small' takes 'GET', not 'DELETE'",
        ),
        (
            &format!("duration-ms = 9\n{request}[[stage]]\nduration-ms = 9\nrate = 5"),
            "'duration-ms': expected either",
        ),
        (
            &format!("{request}[[stage]]\nduration-ms = 9"),
            "stage 1: expected one of 'rate'",
        ),
        (
            &format!("{request}[[stage]]\nduration-ms = 9\nconcurrency = 2"),
            "'concurrency': expected either",
        ),
        (
            &format!("think-time-ms = 5\n{request}[[stage]]\nduration-ms = 9\nrate = 2"),
            "'think-time-ms'",
        ),
        (
            &format!("duration-ms = 9\n{request}[[prepare]]\nname = 'p'\nrequests = 1\nof = ['b']"),
            "'of': expected names",
        ),
        (
            &format!("duration-ms = 9\n{request}[recovery]\nbaseline = 'x'"),
            "[recovery]: expected a scenario with stages",
        ),
        (
            &format!(
                "requests = 9\n{request}order = 'once'\nweight = 1\n[[request]]\nname = 'b'\n\
                      order = 'once'\ntarget = ['/bytes/{{n}}', '/bytes/2']\nrange = [1, 3]"
            ),
            "request 'b': 'order': 'once', but the target '/bytes/2' is there twice",
        ),
        (
            &format!(
                "{request}[[stage]]\nname = 'x'\nduration-ms = 9\nrate = 2\n\
                      [[stage]]\nname = 'x'\nduration-ms = 9\nrate = 2"
            ),
            "stage 2: 'name': 'x' is repeated",
        ),
        (
            &format!(
                "{request}[[stage]]\nduration-ms = 9\nrate = 2\n\
                      [[stage]]\nduration-ms = 9\nconcurrency = 2"
            ),
            "stage 2: expected 'rate', as in the first stage, found 'concurrency'",
        ),
        (
            &format!(
                "{request}[[stage]]\nname = 'x'\nduration-ms = 2000\nrate = 2\n\
                      [recovery]\nbaseline = 'x'"
            ),
            "expected 3 s or more after the stage 'x'",
        ),
        (
            &format!(
                "duration-ms = 9\n{request}[[prepare]]\nname = 'p'\nrequests = 1\n\
                      counters-at-least = {{ nobody = 1 }}"
            ),
            "no path declares the counter 'nobody'",
        ),
        (
            &format!("duration-ms = 9\n{request}headers = {{ a = 3 }}"),
            "expected a text or a list of texts",
        ),
        (
            &format!("duration-ms = 9\n{request}range = [1]"),
            "'range': expected two numbers",
        ),
        (
            &format!("requests = 1000\nlimit-ms = 5000\nrates = [100]\n{request}"),
            "1000 at 100 per second take longer than 5000 ms ('limit-ms')",
        ),
        (
            &format!("requests = 10\nrates-percent-of-knee = [50]\n{request}"),
            "'requests': expected 'duration-ms'",
        ),
    ];
    for (rest, expected) in cases {
        bench.write("bad.toml", &scenario("'./alone.toml'", rest));
        let output = bench.run(&["plan", "./bad.toml"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{rest}: {said}");
        assert!(said.contains(expected), "{rest}: {said}");
    }
    assert!(bench.runs().is_empty());
}
