//! Goal: a peer that is killed at any instant of traffic costs its own connections and no more.
//! Clients are told, the next peer serves, and the survivor has what it had before.
//! Method: clients that ask without end; kill(2) at random moments, again and again, of the plugin
//! under one host and of the host over one plugin. This is the short form; `scripts/soak.sh` has
//! the long one.

mod process;

use std::{
    collections::BTreeSet,
    io::Write,
    net::TcpStream,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use process::{
    get,
    traffic::{Left, Random, answer, bound, prepare, rest_of},
    tunnel::{TRANSPORTS, Tunnel, start_host, start_plugin},
    until,
};

const CLIENTS: usize = 4;

/// Longest time that a peer lives before it is killed.
const LIFE_MS_MAX: u64 = 60;

const HOST_OPTIONS: [&str; 1] = ["--threads=4"];
const ORIGIN: [&str; 1] = ["--origin=in-process"];

/// Address at which clients find the host, and what came of their requests.
struct Traffic {
    front: Mutex<String>,
    is_over: AtomicBool,
    right: AtomicU64,
    cut_off: AtomicU64,
    /// Number of requests of each client that have ended, in whatever way.
    ended: [AtomicU64; CLIENTS],
    /// Whether each client is connected.
    open: [AtomicBool; CLIENTS],
    /// Longest time that it took to connect, or to find that nobody listens.
    connect_ms_max: AtomicU64,
}

impl Traffic {
    fn new(front: &str) -> Self {
        Self {
            front: Mutex::new(front.to_owned()),
            is_over: AtomicBool::new(false),
            right: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            ended: Default::default(),
            open: Default::default(),
            connect_ms_max: AtomicU64::new(0),
        }
    }

    fn front(&self) -> String {
        self.front.lock().expect("no panic").clone()
    }

    fn connect(&self) -> Option<TcpStream> {
        let started = Instant::now();
        let connected = TcpStream::connect(self.front());
        let taken_ms = u64::try_from(started.elapsed().as_millis()).expect("little");
        self.connect_ms_max.fetch_max(taken_ms, Relaxed);
        connected.ok()
    }

    /// Asks until the traffic is over. An answer must be right and whole, or there must be none.
    fn ask(&self, client: usize) {
        let mut random = Random(client as u64 + 1);
        let mut socket = None;
        while !self.is_over.load(Relaxed) {
            let length = random.size();
            let kept = socket.take().or_else(|| self.connect());
            self.open[client].store(kept.is_some(), Relaxed);
            let answered = kept.and_then(|mut kept: TcpStream| {
                prepare(&kept);
                let request = format!("GET /bytes/{length} HTTP/1.1\r\nhost: x\r\n\r\n");
                kept.write_all(request.as_bytes()).ok()?;
                let body = answer(&mut kept).ok()?;
                assert_eq!(body.len(), length);
                Some(kept)
            });
            match answered {
                Some(kept) => {
                    self.right.fetch_add(1, Relaxed);
                    socket = Some(kept).filter(|_| random.below(10) > 0);
                }
                None => {
                    self.cut_off.fetch_add(1, Relaxed);
                    thread::yield_now();
                }
            }
            self.open[client].store(socket.is_some(), Relaxed);
            self.ended[client].fetch_add(1, Relaxed);
        }
    }

    /// Waits until each connected client's present request has ended. Clients that are about to
    /// connect don't count, since they may have to wait for the kernel's timers.
    fn until_told(&self) {
        let before = self.ended.each_ref().map(|ended| ended.load(Relaxed));
        let open = self.open.each_ref().map(|open| open.load(Relaxed));
        until("each client has been told", || {
            let now = self.ended.each_ref().map(|ended| ended.load(Relaxed));
            let mut clients = now.iter().zip(before).zip(open);
            clients.all(|((now, before), open)| !open || *now > before)
        });
    }
}

/// The longest times over all kills.
#[derive(Debug, Default)]
struct Longest {
    until_told: Duration,
    until_served: Duration,
}

/// Kills and replaces `victim` `kills` times.
fn kill_again_and_again(transport: &str, victim: &str, kills: u64) {
    let mut tunnel = Tunnel::start_with(transport, &HOST_OPTIONS, &ORIGIN);
    until_served(&tunnel.front);
    let survivor = if victim == "host" { "plugin" } else { "host" };
    let traffic = Traffic::new(&tunnel.front);
    let mut random = Random(kills + victim.len() as u64);
    let mut longest = Longest::default();
    let mut before = None;
    thread::scope(|scope| {
        // A failed assertion below must not leave the clients asking.
        let _stopping = StopOnDrop(&traffic);
        for client in 0..CLIENTS {
            let traffic = &traffic;
            scope.spawn(move || traffic.ask(client));
        }
        // The first few kills fill pools and caches.
        for round in 0..kills + WARM_UP_KILLS {
            if round == WARM_UP_KILLS {
                before = Some(Left::of(tunnel.program(survivor)));
            }
            live(Duration::from_millis(random.below(LIFE_MS_MAX)));
            replace(&mut tunnel, transport, victim, &traffic, &mut longest);
        }
    });
    let connect_ms_max = traffic.connect_ms_max.load(Relaxed);
    let (right, cut_off) = (traffic.right.into_inner(), traffic.cut_off.into_inner());
    let after = rest_of(&tunnel, survivor);
    let before = before.expect("there were kills");
    eprintln!(
        "{transport}: {victim} killed {kills} times; {right} answers correct, {cut_off} cut off; \
         clients told within {:.0} ms, served again within {:.0} ms of its start; connecting \
         took at most {connect_ms_max} ms; {survivor}: {} threads, {} descriptors, private {} KiB \
         before, {} after",
        longest.until_told.as_secs_f64() * 1e3,
        longest.until_served.as_secs_f64() * 1e3,
        after.threads,
        after.descriptors,
        before.private_kib,
        after.private_kib,
    );
    assert!(right > 0 && cut_off > 0);
    // The clients' connections were among those before.
    assert!(
        after.descriptors <= before.descriptors,
        "{before:?} {after:?}"
    );
    let threads_max = before.threads + POOL_THREADS;
    assert!(after.threads <= threads_max, "{before:?} {after:?}");
    let names = ["tunnel", "tunnel.host-admin", "tunnel.plugin-admin"].map(PathBuf::from);
    assert_eq!(files(&tunnel), BTreeSet::from(names), "files are left");
}

const WARM_UP_KILLS: u64 = 3;

/// Threads that a pool may have started meanwhile and keeps for a while.
const POOL_THREADS: usize = 2;

struct StopOnDrop<'a>(&'a Traffic);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
    }
}

/// Lets time pass. This doesn't wait for anything: the peer must die at a random moment.
fn live(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

fn replace(
    tunnel: &mut Tunnel,
    transport: &str,
    victim: &str,
    traffic: &Traffic,
    longest: &mut Longest,
) {
    let directory = tunnel.directory.path();
    let killed = Instant::now();
    if victim == "host" {
        tunnel.host.kill();
    } else {
        tunnel.plugin.kill();
    }
    traffic.until_told();
    longest.until_told = longest.until_told.max(killed.elapsed());
    let started = if victim == "host" {
        tunnel.host = start_host(transport, directory, &HOST_OPTIONS);
        tunnel.front = tunnel.host.line("listening on ");
        let started = Instant::now();
        traffic
            .front
            .lock()
            .expect("no panic")
            .clone_from(&tunnel.front);
        started
    } else {
        let started = Instant::now();
        tunnel.plugin = start_plugin(transport, directory, &ORIGIN);
        started
    };
    until_served(&tunnel.front);
    longest.until_served = longest.until_served.max(started.elapsed());
}

fn until_served(front: &str) {
    until("it is served", || {
        get(front, "/small").is_ok_and(|answer| answer.ends_with("ok"))
    });
}

fn files(tunnel: &Tunnel) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(tunnel.directory.path()).expect("a directory");
    let names = entries.map(|entry| entry.expect("readable").file_name().into());
    names.collect()
}

/// Returns how often host and plugin are killed each: half of all kills.
fn kills() -> u64 {
    bound("HOPBENCH_KILLS", 10).div_ceil(2)
}

#[test]
fn plugins_may_be_killed_at_any_instant() {
    for transport in TRANSPORTS {
        kill_again_and_again(transport, "plugin", kills());
    }
}

#[test]
fn hosts_may_be_killed_at_any_instant() {
    for transport in TRANSPORTS {
        kill_again_and_again(transport, "host", kills());
    }
}
