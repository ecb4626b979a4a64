//! Goal: whatever a path or the machine does during a run leads to a record, a message and an exit
//! code, and other trials are unharmed. Method: servers that misbehave in many ways, signals, and a
//! full disk.

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use support::{
    Running, after,
    bench::{Bench, SHORT, children_of, failure, long, run_short, shell_path, short},
    bin, command, installed, output, text, until,
};

/// Writes a path with a Python server that answers correctly `answers` times, then not at all.
fn tiring_server(bench: &Bench, answers: u32) -> String {
    let server = "import socket, sys, threading\n\
        left = int(sys.argv[2])\n\
        def serve(c):\n\
        \x20   global left\n\
        \x20   while True:\n\
        \x20       q = c.recv(4096)\n\
        \x20       if not q: return\n\
        \x20       health = b'/health' in q\n\
        \x20       if not health: left -= 1\n\
        \x20       if health or left >= 0:\n\
        \x20           c.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok')\n\
        s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        while True:\n\
        \x20   c, _ = s.accept()\n\
        \x20   threading.Thread(target=serve, args=(c,), daemon=True).start()\n";
    let file = bench.directory.path().join("server.py");
    fs::write(&file, server).expect("writable");
    let script = format!(
        "exec python3 {} {{{{port:front}}}} {answers}",
        file.display()
    );
    shell_path(bench, "tiring.toml", &script)
}

#[test]
fn a_server_that_answers_rightly_and_then_stalls_has_no_metrics() {
    // At the first request, and in a load.
    for answers in [0, 1, 20] {
        let bench = Bench::new();
        let path = tiring_server(&bench, answers);
        let failure = failure(&bench, &path);
        assert!(
            failure["kind"] == "hang" || failure["kind"] == "time-out",
            "{answers}: {failure}"
        );
        assert_eq!(failure["source"], "subject", "{answers}: {failure}");
    }
}

#[test]
fn a_server_that_ends_at_once_is_named_with_its_exit_code() {
    let bench = Bench::new();
    let path = shell_path(&bench, "brief.toml", "exit 0 # {{port:front}}");
    let failure = failure(&bench, &path);
    assert_eq!(failure["kind"], "crash", "{failure}");
    let cause = failure["cause"].as_str().expect("text");
    assert!(cause.contains("'server' exited with code 0"), "{cause}");
}

#[test]
fn what_a_server_said_last_is_told_when_it_ends_or_does_not_answer() {
    let bench = Bench::new();
    let script = "for line in one two three four five six; do echo $line >&2; done";
    let ends = format!("{script}; exit 3 # {{{{port:front}}}}");
    let path = shell_path(&bench, "ends.toml", &ends);
    let told = text(&bench.run(&["verify", &path]).stdout);
    let expected =
        "exited with code 3 without being asked to stop: two / three / four / five / six";
    assert!(told.contains(expected), "{told}");

    let name = "elsewhere.toml";
    shell_path(
        &bench,
        name,
        "echo listening at port 1; exec sleep 600 # {{port:front}}",
    );
    let file = bench.directory.path().join(name);
    let path = fs::read_to_string(&file).expect("written");
    fs::write(&file, format!("start-timeout-ms = 300\n{path}")).expect("ours");
    let told = text(&bench.run(&["verify", "./elsewhere.toml"]).stdout);
    for expected in [
        "did not answer '/health' within 0.3 s",
        "Connection refused",
        "it listens elsewhere",
        "; printed last: server: listening at port 1",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    bench.assert_nothing_left();
}

#[test]
fn a_hop_that_ends_after_a_connection_is_named_with_its_exit_code() {
    let bench = Bench::new();
    if installed("socat").is_none() {
        return;
    }
    let hop = "socat TCP-LISTEN:{{port:front}} TCP:127.0.0.1:{{port:origin}}";
    let failed = bench.run(&["quick", hop]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let told = text(&failed.stdout);
    assert!(told.contains("'socat' exited with code 0"), "{told}");
    assert!(!told.contains("no answer"), "{told}");
    bench.assert_nothing_left();
}

#[test]
fn a_script_without_its_interpreter_is_named() {
    let bench = Bench::new();
    let script = bench.write("relay.py", "#!/no/such/python\n");
    let file = bench.directory.path().join("relay.py");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("ours");
    let hop = format!("{script} {{{{port:front}}}} {{{{port:origin}}}}");
    let told = text(&bench.run(&["quick", &hop]).stdout);
    let expected = "relay.py': the interpreter in its first line ('#!/no/such/python') is missing";
    assert!(told.contains(expected), "{told}");
    bench.assert_nothing_left();
}

#[test]
fn a_process_that_serves_no_counters_where_its_path_says_is_named() {
    let bench = Bench::new();
    let path = bench.write(
        "mute.toml",
        "summary = 'x'\nfront = '127.0.0.1:{{port:front}}'\n[[process]]\nname = 'mute'\n\
         role = 'origin'\nadmin = 'unix:{{socket:nobody}}'\nstops-with-stdin = true\n\
         command = ['sh', '-c', 'exec \"$0\" --listen=127.0.0.1:{{port:front}} --exit-with-stdin', \
         '{{bin:http_baseline}}', '{{socket:nobody}}']\nversion = ['{{bin:http_baseline}}', '--version']\n",
    );
    let verified = bench.run(&["verify", &path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let told = text(&verified.stdout);
    assert!(
        told.contains("did not start: 'mute' did not serve its counters within 10 s at 'unix:/")
            && told.contains("/nobody' (its 'admin')"),
        "{told}"
    );
}

/// Returns whether no process is left in the run's temporary directory, where servers work.
fn nobody_is_left(bench: &Bench) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux");
    let directories = processes.map(|it| fs::read_link(it.expect("listed").path().join("cwd")));
    !directories
        .flatten()
        .any(|it| it.starts_with(bench.temporary()))
}

#[test]
fn a_server_that_goes_to_the_background_is_not_left_there() {
    // In the group of the child that started it and, like a daemon, in its own session.
    for session in ["", "setsid "] {
        let bench = Bench::new();
        let server = bin("http_baseline");
        let script = format!(
            "{session}{} --listen=127.0.0.1:{{{{port:front}}}} &",
            server.display()
        );
        let path = shell_path(&bench, "daemon.toml", &script);
        let failure = failure(&bench, &path);
        assert_eq!(failure["kind"], "crash", "{failure}");
        let cause = failure["cause"].as_str().expect("text");
        assert!(cause.contains("run it in the foreground"), "{failure}");
        until("it is gone", || nobody_is_left(&bench));
        let verified = bench.run(&["verify", "smoke", "--path", &path]);
        assert_eq!(verified.status.code(), Some(1), "{verified:?}");
        let told = text(&verified.stdout);
        assert!(told.contains("run it in the foreground"), "{told}");
        until("it is gone", || nobody_is_left(&bench));
    }
}

#[test]
fn what_a_server_starts_in_a_session_of_its_own_ends_with_its_trial_and_is_named() {
    let bench = Bench::new();
    let server = bin("http_baseline");
    // One has a parent until the end, the other has none. Each has a child.
    let script = format!(
        "setsid sh -c 'sleep 1000 & wait' & (setsid sh -c 'sleep 1001 & wait' &) ; \
         exec {} --listen=127.0.0.1:{{{{port:front}}}}",
        server.display()
    );
    let path = shell_path(&bench, "straying.toml", &script);
    run_short(&bench, &path);
    assert!(nobody_is_left(&bench));
    for trial in bench.trials() {
        let warnings = trial["warnings"].as_array().expect("a list");
        let strayed = |name: &str| {
            let named = warnings
                .iter()
                .filter(|it| it["strayed"]["process"] == name);
            named.count()
        };
        let expected = if trial["path"] == "straying" { 2 } else { 0 };
        assert_eq!(
            (strayed("sh"), strayed("sleep")),
            (expected, expected),
            "{trial}"
        );
    }
    bench.assert_nothing_left();
}

#[test]
fn what_a_server_starts_in_a_session_of_its_own_is_named_if_it_ends_within_the_load() {
    let bench = Bench::new();
    let server = bin("http_baseline");
    let script = format!(
        "(while sleep 0.01; do setsid -f true; done) & \
         exec {} --listen=127.0.0.1:{{{{port:front}}}}",
        server.display()
    );
    let path = shell_path(&bench, "straying.toml", &script);
    run_short(&bench, &path);
    for trial in bench.trials() {
        let warnings = trial["warnings"].as_array().expect("a list");
        let is_named = warnings.iter().any(|it| it["strayed"]["process"] == "true");
        assert_eq!(is_named, trial["path"] == "straying", "{trial}");
    }
    bench.assert_nothing_left();
}

#[test]
fn what_a_shell_had_started_before_it_became_hopbench_is_let_be() {
    let bench = Bench::new();
    // One child stays a child. The child of the other becomes hopbench's while a path runs.
    let before = "sleep 1000 >/dev/null 2>&1 & echo $! >child\n\
                  (while ! ls tmp/hopbench-* >/dev/null 2>&1; do :; done\n\
                   sleep 1001 >/dev/null 2>&1 & echo $! >orphan) & :";
    let mut shell = after(before, &bench.command(&short("direct")));
    shell.current_dir(bench.directory.path());
    bench.set_apart(&mut shell);
    let result = output(&mut shell);
    assert!(result.status.success(), "{}", text(&result.stderr));
    for name in ["child", "orphan"] {
        let sleeper = fs::read_to_string(bench.directory.path().join(name)).expect("written");
        let sleeper = Pid::from_raw(sleeper.trim().parse().expect("a number"));
        assert_eq!(kill(sleeper, Signal::SIGKILL), Ok(()), "{name} was there");
    }
}

/// Describes a path whose version command starts a sleeper in a session of its own, behind a
/// wrapper. Returns what is said, and the sleeper.
fn described_with_a_sleeper(wrapper: &str) -> (String, Pid) {
    let bench = Bench::new();
    let server = bin("http_baseline");
    let script = format!(
        "{wrapper} setsid sh -c 'echo $$ >sleeper; exec sleep 20' &\n\
         while [ ! -s sleeper ]; do :; done\n\
         echo version 1.2\n"
    );
    bench.write("version.sh", &script);
    let path = bench.write(
        "clinging.toml",
        &format!(
            "summary = 'x'\nfront = '127.0.0.1:{{{{port:front}}}}'\n[[process]]\nname = 'p'\n\
             role = 'origin'\ncommand = ['{}', '--listen=127.0.0.1:{{{{port:front}}}}']\n\
             version = ['sh', 'version.sh']\n",
            server.display()
        ),
    );
    let described = bench.run(&["describe", &path]);
    let sleeper = fs::read_to_string(bench.directory.path().join("sleeper")).expect("written");
    let sleeper = Pid::from_raw(sleeper.trim().parse().expect("a number"));
    (text(&described.stdout) + &text(&described.stderr), sleeper)
}

#[test]
fn what_a_program_starts_when_it_is_asked_its_version_ends_with_it() {
    let (told, sleeper) = described_with_a_sleeper("");
    assert!(told.contains("version 1.2"), "{told}");
    assert_eq!(kill(sleeper, Signal::SIGKILL), Err(Errno::ESRCH), "{told}");
}

#[test]
fn a_version_whose_output_does_not_end_is_given_up() {
    // Without its environment, it can't be known where the sleeper comes from.
    let (told, sleeper) = described_with_a_sleeper("env -i");
    // It has not ended by itself yet.
    assert_eq!(kill(sleeper, Signal::SIGKILL), Ok(()), "{told}");
    assert!(told.contains("still holds its output open"), "{told}");
}

#[test]
fn a_program_without_a_version_is_named_before_anything_is_measured() {
    let bench = Bench::new();
    let server = bin("http_baseline");
    let path = shell_path(
        &bench,
        "silent.toml",
        &format!(
            "exec {} --listen=127.0.0.1:{{{{port:front}}}}",
            server.display()
        ),
    );
    let file = bench.directory.path().join("silent.toml");
    let toml = fs::read_to_string(&file).expect("there");
    fs::write(&file, toml.replace("echo 1", "echo no version >&2; exit 3")).expect("writable");
    let expected = "process 'server' did not report its version: ";
    let verified = bench.run(&["verify", &path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let told = text(&verified.stdout);
    let rows: Vec<&str> = told.lines().filter(|it| it.starts_with("silent")).collect();
    assert!(
        rows[0].contains("version") && rows[0].contains("FAILED"),
        "{told}"
    );
    assert!(
        rows[0].contains(expected) && rows[0].ends_with("no version"),
        "{told}"
    );
    assert!(rows[1..].iter().all(|row| row.ends_with(" ok")), "{told}");
    for refused in [bench.run(&short(&path)), bench.run(&["describe", &path])] {
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        let errors = text(&refused.stderr);
        assert!(errors.contains(expected), "{errors}");
    }
    assert_eq!(bench.runs(), Vec::<std::path::PathBuf>::new());
    bench.assert_nothing_left();
}

#[test]
fn a_server_that_prints_without_end_fills_no_disk() {
    let bench = Bench::new();
    let server = bin("http_baseline");
    let script = format!(
        "yes a line that nobody wants to read & exec {} --listen=127.0.0.1:{{{{port:front}}}}",
        server.display()
    );
    let path = shell_path(&bench, "loud.toml", &script);
    run_short(&bench, &path);
    let logs = fs::read_dir(bench.run_dir().join("raw")).expect("there");
    let sizes = logs.map(|log| log.expect("listed").metadata().expect("there").len());
    let largest = sizes.max().expect("a log");
    assert!((100_000..2 << 20).contains(&largest), "{largest} bytes");
    // `yes` is in the server's group, so it is counted and ends with the server.
    let trials = bench.trials();
    let strayed = trials
        .iter()
        .any(|trial| trial["warnings"].to_string().contains("strayed"));
    assert!(!strayed, "{trials:?}");
    bench.assert_nothing_left();
}

#[test]
fn a_server_that_is_stopped_in_the_middle_is_a_failed_trial() {
    let bench = Bench::new();
    let scenario = long(&bench);
    let arguments = [
        "run",
        &scenario,
        "--request-timeout-ms=1500",
        "--repeat-disturbed=0%",
    ];
    let running = Running::start(&mut bench.command(&arguments));
    let mut pids = Vec::new();
    until("the load is on", || {
        let load = children_of(running.pid(), "hopbench-load");
        pids = children_of(running.pid(), "http-tunnel-host");
        !load.is_empty() && !pids.is_empty()
    });
    kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).expect("it runs");
    running.error_line("FAILED");
    let (status, _, errors) = running.wait();
    assert_eq!(status.code(), Some(1), "{errors}");
    let trials = bench.trials();
    let failed: Vec<&Value> = trials
        .iter()
        .filter(|trial| trial["outcome"] != "ok")
        .collect();
    // On a busy machine other trials may be late.
    assert_eq!(trials.len(), 4, "{errors}");
    let stopped = |trial: &&&Value| trial["warnings"].to_string().contains("unstoppable");
    let failed: Vec<&&Value> = failed.iter().filter(stopped).collect();
    // A process that doesn't stop when asked was killed, and the record says so.
    assert_eq!(failed.len(), 1, "{errors}");
    let kind = &failed[0]["outcome"]["failed"]["kind"];
    assert!(kind == "hang" || kind == "time-out", "{failed:?}");
    bench.assert_nothing_left();
}

#[test]
fn a_terminal_that_is_closed_ends_a_run_like_ctrl_c() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let bench = Bench::new();
        let scenario = long(&bench);
        let running = Running::start(&mut bench.command(&["run", &scenario]));
        let pid = running.pid();
        running.error_line("[1/4]");
        until("the second trial is on", || {
            !children_of(pid, "hopbench-load").is_empty()
        });
        let children = children_of(pid, "");
        running.signal(signal);
        let (status, _, errors) = running.wait();
        assert_eq!(status.code(), Some(130), "{signal}: {errors}");
        for child in children {
            let process = Path::new("/proc").join(child.to_string());
            assert!(!process.exists(), "{signal}: {child} is left");
        }
        assert_eq!(bench.trials().len(), 1);
        bench.assert_nothing_left();
    }
}

#[test]
fn records_of_another_version_are_refused_by_name() {
    let bench = Bench::new();
    run_short(&bench, "direct");
    let file = bench.run_dir().join("manifest.json");
    let manifest = fs::read_to_string(&file).expect("written");
    let newer = manifest.replace("\"schema\": 2", "\"schema\": 99");
    assert_ne!(manifest, newer);
    fs::write(&file, newer).expect("writable");
    for command in ["report", "gate"] {
        let refused = bench.run(&[command]);
        assert_eq!(refused.status.code(), Some(4), "{command}: {refused:?}");
        let errors = text(&refused.stderr);
        assert!(errors.contains("has schema 99"), "{command}: {errors}");
    }
}

#[test]
fn a_history_that_may_not_grow_is_as_it_was() {
    let bench = Bench::new();
    // This run was made from a commit, whatever is being changed here.
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../bench_results/reference");
    let runs = fs::read_dir(runs).expect("there");
    let run = runs.map(|run| run.expect("listed").path()).min();
    let run_dir = run.expect("one").display().to_string();
    let add = ["history", "--file=history.jsonl", "--add", &run_dir];
    assert!(bench.run(&add).status.success());
    let file = bench.directory.path().join("history.jsonl");
    let row = fs::read_to_string(&file).expect("written");
    assert!(row.len() > 512, "less than a block of the limit");
    // With another start time, so that the run can be added again.
    let earlier = row.replace("\"started\":\"2", "\"started\":\"1");
    assert_ne!(row, earlier);
    fs::write(&file, &earlier).expect("writable");
    let limit = format!("trap '' XFSZ; ulimit -f {}", earlier.len() / 512 + 1);
    let refused = output(after(&limit, &bench.command(&add)).current_dir(bench.directory.path()));
    let errors = text(&refused.stderr);
    assert!(
        errors.contains("could not write 'history.jsonl'"),
        "{errors}"
    );
    assert_eq!(fs::read_to_string(&file).expect("there"), earlier);
}

/// A path fills the disk that holds the results, and then answers.
#[test]
fn a_disk_that_is_full_in_the_middle_costs_no_record_that_was_written() {
    let bench = Bench::new();
    let results = bench.directory.path().join("results");
    fs::create_dir(&results).expect("fresh");
    let server = bin("http_baseline");
    let script = format!(
        "cat /dev/zero > {}/fill 2>/dev/null; exec {} --listen=127.0.0.1:{{{{port:front}}}}",
        results.display(),
        server.display()
    );
    let path = shell_path(&bench, "filler.toml", &script);
    let Some(unshare) = installed("unshare") else {
        return;
    };
    // An order in which another path is measured first.
    let cell = [
        "http-tunnel",
        "--endpoint=/small",
        "--path",
        &path,
        "--blocks=3",
    ];
    let seed = (1..).find(|seed| {
        let seed = format!("--seed={seed}");
        let arguments = [&["plan"], &cell[..], &[&seed, "--format=json"]].concat();
        let plan: Value = serde_json::from_slice(&bench.run(&arguments).stdout).expect("JSON");
        plan["trials"][0]["path"] == "direct"
    });
    // A separate disk, in a separate name space.
    let script = format!(
        "mount -t tmpfs -o size=4m none {results} && echo mounted && \
         {hopbench} run http-tunnel --endpoint=/small --path={path} {short} --blocks=3 --seed={seed} \
         --out={results}; echo \"code $?\"; rm -f {results}/fill; \
         {hopbench} report --out={results}; echo \"code $?\"; wc -l {results}/*/trials.jsonl; \
         grep -vc '}}$' {results}/*/trials.jsonl",
        results = results.display(),
        hopbench = bin("hopbench").display(),
        short = SHORT[..3].join(" "),
        seed = seed.expect("some order has it"),
    );
    let mut unshare = command(unshare);
    bench.set_apart(&mut unshare);
    unshare.current_dir(bench.directory.path()).args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
    ]);
    let result = output(&mut unshare);
    let (out, errors) = (text(&result.stdout), text(&result.stderr));
    if !out.starts_with("mounted") {
        eprintln!("SKIPPED: no name space of one's own here, a full disk is not tested: {errors}");
        return;
    }
    // The run reports what it could not write, and what was written can be read.
    let codes: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with("code "))
        .collect();
    assert_eq!(codes, ["code 4", "code 0"], "{out}\n{errors}");
    assert!(errors.contains("No space left on device"), "{errors}");
    let told = format!("'hopbench report {}/", results.display());
    assert!(errors.contains(&told), "{errors}");
    let lines = out.lines().find(|line| line.ends_with("trials.jsonl"));
    let lines = lines.and_then(|line| line.split_whitespace().next());
    let lines: usize = lines.and_then(|count| count.parse().ok()).expect("a count");
    assert!(lines > 0 && out.contains(&format!("{lines} of ")), "{out}");
    assert!(out.ends_with("\n0\n"), "a line is broken: {out}");
}
