//! Goal: with `--durability=power`, what a client saw complete is on the disk. Method: strace shows
//! every call that changes the store; a model of a disk forgets, at a loss of power, all that
//! wasn't synced: bytes of files, and names in directories. The program then replays from what is
//! left.

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use support::{
    Proxy,
    processes::{command, installed, output, text},
    split, status, upstream,
};
use tempfile::TempDir;

const ANSWERS: usize = 24;
const CALLS: &str = "write,writev,sendto,sendmsg,pwrite64,pwritev,ftruncate,fsync,fdatasync,\
    rename,unlink,mkdir";

/// A file, and what of it would survive.
#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    synced: Vec<u8>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Directory,
    File(usize),
}

/// A disk whose cache is lost with the power.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<Content>,
    live: BTreeMap<PathBuf, Entry>,
    synced: BTreeMap<PathBuf, Entry>,
}

/// A call as strace prints it.
struct Call<'a> {
    name: &'a str,
    /// The path of the descriptor that is the first argument.
    path: PathBuf,
    strings: Vec<Vec<u8>>,
    /// The last argument, if it is a number.
    last: usize,
    result: usize,
}

impl Disk {
    fn file(&mut self, path: &Path) -> usize {
        if let Some(Entry::File(index)) = self.live.get(path) {
            return *index;
        }
        self.files.push(Content::default());
        let index = self.files.len() - 1;
        self.live.insert(path.to_owned(), Entry::File(index));
        index
    }

    fn write(&mut self, path: &Path, at: Option<usize>, bytes: &[u8]) {
        let index = self.file(path);
        let live = &mut self.files[index].live;
        let at = at.unwrap_or(live.len());
        live.resize(live.len().max(at + bytes.len()), 0);
        live[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn sync(&mut self, path: &Path) {
        if let Some(Entry::File(index)) = self.live.get(path) {
            let file = &mut self.files[*index];
            file.synced.clone_from(&file.live);
            return;
        }
        let is_in = |other: &PathBuf| other.parent() == Some(path);
        self.synced.retain(|other, _| !is_in(other));
        let names = self.live.iter().filter(|(other, _)| is_in(other));
        self.synced
            .extend(names.map(|(path, entry)| (path.clone(), entry.clone())));
    }

    fn apply(&mut self, call: &Call<'_>) {
        let named = |index: usize| {
            let bytes = call.strings[index].clone();
            PathBuf::from(String::from_utf8(bytes).expect("a path"))
        };
        match call.name {
            "write" => self.write(&call.path, None, &call.strings[0]),
            "pwrite64" => self.write(&call.path, Some(call.last), &call.strings[0]),
            "ftruncate" => {
                let index = self.file(&call.path);
                self.files[index].live.resize(call.last, 0);
            }
            "fsync" | "fdatasync" => self.sync(&call.path),
            "rename" => {
                let entry = self.live.remove(&named(0)).expect("written before");
                self.live.insert(named(1), entry);
            }
            "unlink" => drop(self.live.remove(&named(0))),
            "mkdir" => drop(self.live.insert(named(0), Entry::Directory)),
            name => panic!("{name}: not expected on a file"),
        }
    }

    /// Makes a directory of what survives a loss of power now.
    fn after_loss(&self, store: &Path, copy: &Path) {
        fs::create_dir_all(copy).expect("writable");
        // Parents come before what is in them.
        for (path, entry) in &self.synced {
            let place = copy.join(path.strip_prefix(store).expect("in the store"));
            if !place.parent().expect("below").is_dir() {
                continue;
            }
            match entry {
                Entry::Directory => fs::create_dir(place).expect("writable"),
                Entry::File(index) => {
                    fs::write(place, &self.files[*index].synced).expect("writable");
                }
            }
        }
    }
}

/// Reads the bytes between quotation marks, all of them in hexadecimal.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    quoted.map(decoded).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.split("\\x").skip(1);
    let number = |byte: &str| u8::from_str_radix(byte, 16).expect("hexadecimal");
    bytes.map(number).collect()
}

impl<'a> Call<'a> {
    /// Reads a line. `None` if the call failed.
    fn read(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        let arguments = arguments.trim_end().strip_suffix(')')?;
        let result = result.split_whitespace().next()?.parse().ok()?;
        let first = arguments.split(',').next()?;
        let path = first.split_once('<').map_or("", |(_, path)| path);
        let path = path.strip_suffix('>').unwrap_or(path);
        let path = match path.contains("\\x") {
            true => String::from_utf8(decoded(path)).ok()?,
            false => path.to_owned(),
        };
        let last = arguments.rsplit(", ").next()?;
        Some(Self {
            name,
            path: path.into(),
            strings: strings(arguments),
            last: last.parse().unwrap_or(0),
            result,
        })
    }
}

/// Joins the two lines of a call during which another thread did something.
fn whole_lines(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut lines = Vec::new();
    for line in trace.lines() {
        let Some((thread, line)) = line.split_once(' ') else {
            continue;
        };
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, begin);
        } else if let Some(resumed) = line.strip_prefix("<... ") {
            let (_, end) = resumed.split_once("resumed>").expect("a resumed call");
            if let Some(begin) = begun.remove(thread) {
                lines.push(format!("{begin}{end}"));
            }
        } else {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// The body of an answer, with a mark of its own at its end. Every fifth is a file.
fn body(number: usize) -> Vec<u8> {
    let length = if number.is_multiple_of(5) { 40_000 } else { 30 };
    let mut body = vec![b'0' + u8::try_from(number % 10).expect("a digit"); length];
    body.extend(mark(number).bytes());
    body
}

fn mark(number: usize) -> String {
    format!("<end of {number}>")
}

/// Records, one after another, and returns what strace saw. `None` if it may not trace.
fn traced(directory: &TempDir, durability: &str) -> Option<String> {
    let strace = installed("strace")?;
    let tried = output(command(&strace).args(["-o", "/dev/null", "true"]));
    if !tried.status.success() {
        let why = text(&tried.stderr);
        eprintln!("SKIPPED: strace is not allowed to trace here: {why}");
        return None;
    }
    let upstream = upstream(|_, head, client| {
        let number = head.split([' ', '/']).nth(2).expect("a target");
        let body = body(number.parse().expect("a number"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).is_ok()
    });
    let trace = directory.path().join("trace");
    let mut tracing = command(strace);
    // The tracer is a grandchild, so that the child is the program itself.
    tracing.args(["-D", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-e"]);
    tracing.arg(format!("trace={CALLS}")).arg("-o").arg(&trace);
    let more = [durability];
    let store = directory.path().join("store");
    let proxy = Proxy::start_under(tracing, &store, "record", Some(upstream.address), &more);
    for number in 0..ANSWERS {
        let answer = proxy.get(&format!("/{number}"), "");
        assert!(split(&answer).1 == body(number), "{number}: another answer");
    }
    proxy.stop();
    support::processes::until("the trace is complete", || {
        let text = fs::read_to_string(&trace).expect("written");
        text.contains("answers.sqlite") || text.contains("\\x73\\x71\\x6c\\x69\\x74\\x65")
    });
    Some(fs::read_to_string(trace).expect("written"))
}

/// Loses power after some of the answers. Returns how many answers were lost.
fn lost(directory: &TempDir, trace: &str) -> usize {
    let store = directory.path().join("store");
    let mut disk = Disk::default();
    let (mut seen, mut lost) = (0, 0);
    for line in whole_lines(trace) {
        let Some(call) = Call::read(&line) else {
            continue;
        };
        let is_named = matches!(call.name, "rename" | "unlink" | "mkdir");
        let in_store = call.path.starts_with(&store)
            || is_named && call.strings[0].starts_with(store.as_os_str().as_encoded_bytes());
        if in_store {
            assert!(call.name != "pwrite64" || call.result == call.strings[0].len());
            disk.apply(&call);
        }
        let sent = call.strings.iter().map(|it| String::from_utf8_lossy(it));
        let mark = mark(seen);
        if in_store || is_named || seen == ANSWERS || !sent.into_iter().any(|it| it.contains(&mark))
        {
            continue;
        }
        seen += 1;
        if seen % 6 == 0 {
            let copy = directory.path().join(format!("after-{seen}"));
            disk.after_loss(&store, &copy);
            if !copy.join("answers.sqlite").exists() {
                lost += seen;
                continue;
            }
            let proxy = Proxy::start(&copy, "replay", None, &[]);
            for number in 0..seen {
                let answer = proxy.get(&format!("/{number}"), "");
                let is_there = status(&answer) == 200;
                assert!(
                    !is_there || split(&answer).1 == body(number),
                    "{number} is torn"
                );
                lost += usize::from(!is_there);
            }
            proxy.stop();
        }
    }
    assert_eq!(seen, ANSWERS, "every answer is in the trace");
    lost
}

#[test]
fn what_a_client_saw_complete_survives_a_loss_of_power_if_that_is_asked_for() {
    let directory = TempDir::new().expect("a directory");
    let Some(trace) = traced(&directory, "--durability=power") else {
        return;
    };
    assert_eq!(lost(&directory, &trace), 0);

    // Without syncing, the model loses answers, so it would notice.
    let directory = TempDir::new().expect("a directory");
    let trace = traced(&directory, "--durability=process").expect("as before");
    assert!(lost(&directory, &trace) > 0);
}
