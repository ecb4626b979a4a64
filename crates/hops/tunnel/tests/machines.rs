//! Goal: ring is correct whatever machine it finds: with few and many threads and event loops, when
//! it may use only some of the cores, and without each of its mechanisms.
//! Method: real processes under an affinity mask; bodies of random sizes both ways, every one
//! compared; the cores and the number of all threads as the kernel sees them.

mod process;

use std::{fs, sync::atomic::Ordering::Relaxed, thread};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use process::{
    Running, command, installed,
    traffic::{Echoed, echo_while, rest},
    tunnel::{LOG, Tunnel},
};

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("known");
    let is_allowed = |core: &usize| allowed.is_set(*core) == Ok(true);
    (0..CpuSet::count()).filter(is_allowed).collect()
}

/// The name of each thread of a program, and the cores that it may use.
fn threads(program: &Running) -> Vec<(String, Vec<usize>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid())).expect("it runs");
    let thread = |task: std::io::Result<fs::DirEntry>| {
        let task = task.expect("listed").file_name();
        let task: i32 = task
            .to_str()
            .and_then(|name| name.parse().ok())
            .expect("a number");
        let name = fs::read_to_string(format!("/proc/{task}/comm")).ok()?;
        let allowed = sched_getaffinity(Pid::from_raw(task)).ok()?;
        let is_allowed = |core: &usize| allowed.is_set(*core) == Ok(true);
        let cores = (0..CpuSet::count()).filter(is_allowed).collect();
        Some((name.trim().to_owned(), cores))
    };
    // A thread may end meanwhile.
    tasks.filter_map(thread).collect()
}

/// Number of bodies that must come back in each set-up.
const BODIES: u64 = 60;

/// Sends bodies there and back through host and plugin, which may use only `mask`. Returns the
/// threads of the host.
fn echo_on(mask: &[usize], host: &[&str], plugin: &[&str]) -> Vec<(String, Vec<usize>)> {
    let cores: Vec<String> = mask.iter().map(usize::to_string).collect();
    let under = || {
        let mut taskset = command("taskset");
        taskset.args(["--cpu-list", &cores.join(",")]);
        taskset
    };
    let tunnel = Tunnel::start_each_under("ring", host, plugin, under);
    let echoed = Echoed::default();
    thread::scope(|scope| {
        for client in 1..=6 {
            let (front, echoed) = (&tunnel.front, &echoed);
            let goes_on = || echoed.bodies.load(Relaxed) < BODIES;
            scope.spawn(move || echo_while(front, client, echoed, goes_on));
        }
    });
    let threads = ["host", "plugin"].map(|name| threads(tunnel.program(name)));
    for (name, allowed) in threads.iter().flatten() {
        let is_within = allowed.iter().all(|core| mask.contains(core));
        assert!(is_within, "{name} may use {allowed:?}, not only {mask:?}");
    }
    rest(&tunnel);
    assert_eq!(tunnel.counter("host", "tunnel_copied_bytes"), 0);
    let [threads, _] = threads;
    threads
}

fn count(threads: &[(String, Vec<usize>)], wanted: &str) -> usize {
    threads.iter().filter(|(name, _)| name == wanted).count()
}

#[test]
fn any_number_of_threads_works_on_any_cores() {
    if installed("taskset").is_none() {
        return;
    }
    let cores = cores();
    let masks = [&cores[..1], &cores[..cores.len().min(2)], &cores[..]];
    for threads in 1..=16 {
        let mask = masks[threads % masks.len()];
        let origin = ["--origin=in-process", "--origin-port=0"][threads % 2];
        let of_host = [&format!("--threads={threads}"), LOG];
        let started = echo_on(mask, &of_host, &[origin, LOG]);
        let loops = threads.div_ceil(2);
        assert_eq!(count(&started, "relay"), loops, "{threads} threads");
        let helpers = count(&started, "relay-helper");
        let most = if threads == 1 {
            0
        } else {
            threads.min(mask.len())
        };
        assert!(
            helpers <= most,
            "{helpers} helpers with {threads} threads on {mask:?}"
        );
    }
}

#[test]
fn the_default_is_the_cores_that_it_may_use() {
    if installed("taskset").is_none() {
        return;
    }
    let cores = cores();
    for mask in [&cores[..1], &cores[..]] {
        let started = echo_on(mask, &[LOG], &["--origin=in-process", LOG]);
        assert_eq!(count(&started, "relay"), mask.len().div_ceil(2).min(16));
        if mask.len() == 1 {
            assert_eq!(count(&started, "relay-helper"), 0);
        }
    }
}

#[test]
fn event_loops_and_mechanisms_may_be_chosen() {
    if installed("taskset").is_none() {
        return;
    }
    let cores = cores();
    for (loops, without, few) in [
        (1, "looking", 8),
        (3, "nothing", 0),
        (16, "helpers", 65_536),
        (2, "pausing", 1),
        (5, "looking,helpers,pausing", 8),
    ] {
        for origin in ["--origin=in-process", "--origin-port=0"] {
            let without = format!("--ring-without={without}");
            let few = format!("--spin-answers-max={few}");
            let loops_wanted = format!("--event-loops={loops}");
            let of_host = [&*without, &few, &loops_wanted, "--threads=2", LOG];
            let started = echo_on(&cores, &of_host, &[&without, &few, origin, LOG]);
            assert_eq!(count(&started, "relay"), loops, "{without}");
            if without.contains("helpers") {
                assert_eq!(count(&started, "relay-helper"), 0);
            }
        }
    }
}
