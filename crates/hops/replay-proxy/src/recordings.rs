//! Recordings by their keys. All keys are in memory; the answers are, as far as there is room.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{rules::Answers, stored::Stored};

/// All recordings of a session.
#[derive(Debug)]
pub struct Recordings {
    shards: Vec<RwLock<HashMap<Box<[u8]>, Slot>>>,
    hasher: RandomState,
    answers: Answers,
    memory: Mutex<Memory>,
    memory_bytes_max: usize,
    count: AtomicUsize,
}

/// The recordings of one key.
#[derive(Debug, Default)]
struct Slot {
    recordings: Vec<Arc<Recording>>,
    /// How many answers were given.
    given: AtomicUsize,
}

/// One recording.
#[derive(Debug)]
pub struct Recording {
    /// Number of its row.
    pub id: u64,
    /// Parameters that a request must have, if they aren't in the key.
    pub pairs: Box<[String]>,
    answer: RwLock<Option<Arc<Stored>>>,
    /// Whether it was asked for since the last look.
    is_used: AtomicBool,
    memory: AtomicUsize,
}

/// The answers in memory.
#[derive(Debug, Default)]
struct Memory {
    queue: VecDeque<Arc<Recording>>,
    bytes: usize,
}

/// The result of a look-up.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is on the disk.
    Cold(Arc<Recording>),
    /// It is in memory.
    Hot(Arc<Stored>),
    /// There is none.
    Nothing,
}

/// Number of parts with a lock each, so that threads hardly meet.
const SHARDS: usize = 64;

impl Recordings {
    /// Makes an empty index.
    pub fn new(answers: Answers, memory_bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            answers,
            memory: Mutex::default(),
            memory_bytes_max,
            count: AtomicUsize::new(0),
        }
    }

    /// Returns the number of recordings that can be asked for.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Returns the bytes of answers in memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory().bytes
    }

    /// Adds a recording, whose answer may be in memory already.
    pub fn add(&self, key: &[u8], id: u64, pairs: Box<[String]>, answer: Option<(Stored, usize)>) {
        let recording = Arc::new(Recording {
            id,
            pairs,
            answer: RwLock::new(None),
            is_used: AtomicBool::new(false),
            memory: AtomicUsize::new(0),
        });
        if let Some((stored, bytes)) = answer {
            self.keep(&recording, Arc::new(stored), bytes);
        }
        let mut shard = write(self.shard(key));
        let slot = match shard.get_mut(key) {
            Some(slot) => slot,
            None => shard.entry(key.into()).or_default(),
        };
        if self.answers == Answers::Latest {
            let mut others = slot.recordings.iter();
            if let Some(at) = others.position(|other| other.pairs == recording.pairs) {
                if slot.recordings[at].id < id {
                    slot.recordings[at].forget();
                    slot.recordings[at] = recording;
                }
                return;
            }
        }
        // Recordings of one key may be committed in another order than they are numbered.
        let at = slot.recordings.partition_point(|other| other.id < id);
        slot.recordings.insert(at, recording);
        self.count.fetch_add(1, Relaxed);
    }

    /// Finds the answer to a request with this key, and, if they aren't in the key, these
    /// parameters.
    pub fn find(&self, key: &[u8], pairs: &[String]) -> Found {
        let shard = read(self.shard(key));
        let Some(slot) = shard.get(key) else {
            return Found::Nothing;
        };
        let Some(recording) = slot.choose(self.answers, pairs) else {
            return Found::Nothing;
        };
        if !recording.is_used.load(Relaxed) {
            recording.is_used.store(true, Relaxed);
        }
        match &*read(&recording.answer) {
            Some(stored) => Found::Hot(Arc::clone(stored)),
            None => Found::Cold(Arc::clone(recording)),
        }
    }

    /// Returns whether the same question always has the same answer, however often it is asked.
    pub(crate) fn answers_stay(&self) -> bool {
        self.answers == Answers::Latest
    }

    /// Keeps an answer in memory, and drops others if there is no room.
    pub fn keep(&self, recording: &Arc<Recording>, stored: Arc<Stored>, bytes: usize) {
        *write(&recording.answer) = Some(stored);
        let before = recording.memory.swap(bytes, Relaxed);
        let mut memory = self.memory();
        memory.bytes = (memory.bytes + bytes).saturating_sub(before);
        if before == 0 {
            memory.queue.push_back(Arc::clone(recording));
        }
        let mut chances = 2 * memory.queue.len();
        while memory.bytes > self.memory_bytes_max && chances > 0 {
            chances -= 1;
            let Some(oldest) = memory.queue.pop_front() else {
                return;
            };
            if oldest.is_used.swap(false, Relaxed) && chances > memory.queue.len() {
                memory.queue.push_back(oldest);
                continue;
            }
            oldest.forget();
            memory.bytes = memory.bytes.saturating_sub(oldest.memory.swap(0, Relaxed));
        }
    }

    /// Removes the recordings that `is_over` says, by key. Returns their numbers.
    pub fn remove(&self, is_over: impl Fn(&[u8]) -> bool) -> Vec<u64> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            write(shard).retain(|key, slot| {
                let goes = is_over(key);
                if goes {
                    removed.extend(slot.recordings.iter().map(|recording| {
                        recording.forget();
                        recording.id
                    }));
                }
                !goes
            });
        }
        self.count.fetch_sub(removed.len(), Relaxed);
        removed
    }

    /// Calls `each` with every key.
    pub fn each_key(&self, mut each: impl FnMut(&[u8])) {
        for shard in &self.shards {
            read(shard).keys().for_each(|key| each(key));
        }
    }

    /// Begins every sequence anew.
    pub fn rewind(&self) {
        for shard in &self.shards {
            for slot in read(shard).values() {
                slot.given.store(0, Relaxed);
            }
        }
    }

    fn shard(&self, key: &[u8]) -> &RwLock<HashMap<Box<[u8]>, Slot>> {
        // Truncating is the point.
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % SHARDS]
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn choose(&self, answers: Answers, pairs: &[String]) -> Option<&Arc<Recording>> {
        if let [only] = self.recordings.as_slice()
            && only.pairs.is_empty()
        {
            return Some(only);
        }
        // Those with the most parameters in common come first: they say most about the request.
        let fits = |it: &&Arc<Recording>| it.pairs.iter().all(|pair| pairs.contains(pair));
        let most = self
            .recordings
            .iter()
            .filter(fits)
            .map(|it| it.pairs.len())
            .max()?;
        let mut best = self
            .recordings
            .iter()
            .filter(fits)
            .filter(|it| it.pairs.len() == most);
        if answers == Answers::Latest {
            return best.next_back();
        }
        let best: Vec<_> = best.collect();
        let given = self.given.fetch_add(1, Relaxed);
        let at = match answers {
            Answers::Cycle => given % best.len(),
            _ => given.min(best.len() - 1),
        };
        best.get(at).copied()
    }
}

impl Recording {
    fn forget(&self) {
        *write(&self.answer) = None;
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{head::Head, stored::Framing};

    fn stored(body: &'static str) -> (Stored, usize) {
        let head = Head::parse("HTTP/1.1 200 OK\r\n".into()).expect("a head");
        (
            Stored::new(head, Framing::Length, Bytes::from_static(body.as_bytes())),
            100,
        )
    }

    fn body(found: Found) -> String {
        match found {
            Found::Hot(stored) => String::from_utf8_lossy(&stored.body).into_owned(),
            Found::Cold(recording) => format!("cold {}", recording.id),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn several_answers_are_given_as_told() {
        for (answers, expected) in [
            (Answers::Latest, ["b", "b", "b"]),
            (Answers::Sequence, ["a", "b", "b"]),
            (Answers::Cycle, ["a", "b", "a"]),
        ] {
            let recordings = Recordings::new(answers, 1_000);
            recordings.add(b"k", 2, Box::default(), Some(stored("b")));
            recordings.add(b"k", 1, Box::default(), Some(stored("a")));
            let given = [(); 3].map(|()| body(recordings.find(b"k", &[])));
            assert_eq!(given, expected, "{answers:?}");
        }
    }

    #[test]
    fn a_recording_may_ask_for_less_than_a_request_says() {
        let recordings = Recordings::new(Answers::Latest, 1_000);
        let pairs = |pairs: &[&str]| pairs.iter().map(|pair| (*pair).to_owned()).collect();
        recordings.add(b"k", 1, pairs(&["a=1"]), Some(stored("one")));
        recordings.add(b"k", 2, pairs(&["a=1", "b=2"]), Some(stored("two")));
        let find = |of: &[&str]| {
            let of: Vec<String> = of.iter().map(|pair| (*pair).to_owned()).collect();
            body(recordings.find(b"k", &of))
        };
        assert_eq!(find(&["a=1", "c=3"]), "one");
        assert_eq!(find(&["c=3", "b=2", "a=1"]), "two");
        assert_eq!(find(&["b=2"]), "nothing");
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let recordings = Recordings::new(Answers::Latest, 250);
        recordings.add(b"a", 1, Box::default(), Some(stored("a")));
        recordings.add(b"b", 2, Box::default(), Some(stored("b")));
        assert_eq!(body(recordings.find(b"a", &[])), "a");
        recordings.add(b"c", 3, Box::default(), Some(stored("c")));
        assert_eq!(recordings.memory_bytes(), 200);
        assert_eq!(body(recordings.find(b"a", &[])), "a");
        assert_eq!(body(recordings.find(b"b", &[])), "cold 2");
        assert_eq!(recordings.remove(|key| key == b"a"), [1]);
        assert_eq!(recordings.count(), 2);
    }
}
