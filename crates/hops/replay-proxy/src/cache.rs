//! Answers that are kept by the rules of HTTP caching (RFC 9111), for a cache that several clients
//! share.

pub mod control;
pub mod policy;
pub mod vary;

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{BufMut as _, Bytes, BytesMut};

use self::{control::Directives, policy::Policy, vary::Vary};
use crate::{
    fields::{Asked, Fields},
    head::Head,
    received::received_head,
    respond::{Part, Ready, part},
    stored::{Stored, is_bodiless},
};

/// All cached answers.
#[derive(Debug)]
pub struct Cache {
    shards: Vec<Mutex<ByKey>>,
    hasher: RandomState,
    queue: Mutex<VecDeque<Weak<Variant>>>,
    bytes: AtomicU64,
    bytes_max: u64,
}

/// The variants of each target.
type ByKey = HashMap<Box<[u8]>, Vec<Arc<Variant>>>;

/// One answer for a target.
#[derive(Debug)]
pub struct Variant {
    /// Number of its row.
    pub id: u64,
    /// The key of its target.
    pub key: Box<[u8]>,
    /// The requests that it answers.
    pub vary: Vary,
    /// How it may be used.
    pub policy: Policy,
    /// The answer.
    pub stored: Arc<Stored>,
    /// Names under which it can be purged.
    pub tags: Vec<String>,
    /// The head without what is added for each answer.
    prefix: Bytes,
    bytes: u64,
    is_used: AtomicBool,
    is_gone: AtomicBool,
}

/// A variant and how it may be used now.
#[derive(Debug)]
pub struct Selected {
    /// The variant.
    pub variant: Arc<Variant>,
    /// Whether it may be used without asking.
    pub is_usable: bool,
}

/// Number of parts with a lock each.
const SHARDS: usize = 64;

/// This program's name in `Cache-Status` (RFC 9211).
pub(crate) const NAME: &str = "replay-proxy";

impl Variant {
    /// Makes a variant.
    pub fn new(id: u64, key: &[u8], vary: Vary, policy: Policy, stored: Arc<Stored>) -> Self {
        let kept = |name: &[u8], _: &[u8]| {
            !name.eq_ignore_ascii_case(b"age") && !name.eq_ignore_ascii_case(b"cache-status")
        };
        let prefix = stored.head.filtered(kept).finish(stored.head.status);
        let bytes = (stored.body.len() + 3 * stored.head.bytes().len() + key.len() + 512) as u64;
        Self {
            id,
            key: key.into(),
            vary,
            policy,
            tags: tags(&stored.head),
            prefix: prefix.bytes().clone(),
            stored,
            bytes,
            is_used: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Makes a variant of an answer to a GET as it came: its head, and its whole body without what
    /// frames chunks. Returns `None` if it must not be stored.
    pub fn received<F: Fields + ?Sized>(
        key: &[u8],
        request: &F,
        (head, body): (Bytes, Bytes),
        requested_ms: i64,
    ) -> Option<Self> {
        let received = received_head(head, requested_ms).ok()?;
        let directives = Directives::read(&received.head);
        let policy = Policy::of(request, &directives, &received)?;
        let vary = Vary::of(&received.head, request);
        let shown = directives.without_hidden(&received.head);
        let stored = Stored::new(shown, received.framing, body);
        Some(Self::new(0, key, vary, policy, Arc::new(stored)))
    }

    /// Returns the answer as bytes, if the request asks for all of it. Works without hyper. The
    /// cache calls itself `name` in `Cache-Status`.
    pub fn ready<F: Fields + ?Sized>(
        &self,
        asked: &Asked<'_, F>,
        name: &str,
        now_ms: i64,
    ) -> Option<Ready> {
        if !self.stored.is_plain() || part(&self.stored, asked) != Part::Whole {
            return None;
        }
        let mut head = BytesMut::with_capacity(self.prefix.len() + 96);
        head.put_slice(&self.prefix);
        head.put_slice(format!("age: {}\r\n", self.policy.age_ms(now_ms) / 1_000).as_bytes());
        let status = self.hit_status(name, now_ms);
        head.put_slice(format!("cache-status: {status}\r\n").as_bytes());
        if !self.stored.head.has("content-length") && !is_bodiless(self.stored.head.status) {
            let length = self.stored.body.len();
            head.put_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        head.put_slice(b"\r\n");
        let body = if asked.method == "HEAD" {
            Bytes::new()
        } else {
            self.stored.body.clone()
        };
        Some(Ready {
            head: head.freeze(),
            body,
        })
    }

    /// Returns what `Cache-Status` says of a hit.
    pub fn hit_status(&self, name: &str, now_ms: i64) -> String {
        format!(
            "{name}; hit; ttl={}",
            self.policy.fresh_for_ms(now_ms).div_euclid(1_000)
        )
    }
}

/// Reads the tags of an answer.
fn tags(head: &Head) -> Vec<String> {
    let text = |tag: &[u8]| String::from_utf8_lossy(tag).into_owned();
    let spaced = head
        .all("surrogate-key")
        .flat_map(|value| value.split(u8::is_ascii_whitespace));
    let tags = head
        .list("cache-tag")
        .chain(spaced.filter(|tag| !tag.is_empty()));
    tags.map(text).collect()
}

/// Writes the key of a target: the host, in lower case, and the target.
pub fn key<F: Fields + ?Sized>(asked: &Asked<'_, F>, key: &mut Vec<u8>) {
    key.clear();
    let host = asked.fields.get("host").unwrap_or_default();
    key.extend(host.iter().map(u8::to_ascii_lowercase));
    key.extend_from_slice(asked.target.as_bytes());
}

impl Cache {
    /// Makes an empty cache.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            queue: Mutex::default(),
            bytes: AtomicU64::new(0),
            bytes_max,
        }
    }

    /// Returns the bytes of all answers, mapped ones included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Returns the number of answers.
    pub fn count(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).values().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// Returns the largest answer that has room.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Finds the variant for a request. Of several, the one that was received last.
    pub fn select<F: Fields + ?Sized>(
        &self,
        key: &[u8],
        request: &F,
        directives: &Directives,
        now_ms: i64,
    ) -> Option<Selected> {
        let shard = lock(self.shard(key));
        let variants = shard.get(key)?.iter();
        let fits = variants.filter(|variant| variant.vary.matches(request));
        let variant = fits.max_by_key(|variant| variant.policy.received_ms)?;
        if !variant.is_used.load(Relaxed) {
            variant.is_used.store(true, Relaxed);
        }
        let is_usable = variant.policy.may_use(directives, now_ms);
        Some(Selected {
            variant: Arc::clone(variant),
            is_usable,
        })
    }

    /// Returns whether there is any variant for a target.
    pub fn has(&self, key: &[u8]) -> bool {
        lock(self.shard(key)).contains_key(key)
    }

    /// Keeps a variant in place of those that answer the same requests. Returns the numbers of the
    /// rows that are over, and how many of them had to make room.
    pub fn insert(&self, variant: Arc<Variant>) -> (Vec<u64>, usize) {
        let mut over = Vec::new();
        {
            let mut shard = lock(self.shard(&variant.key));
            let variants = shard.entry(variant.key.clone()).or_default();
            variants.retain(|other| {
                // A variant that says to depend on other fields is from before a change.
                let stays = other.vary != variant.vary;
                if !stays {
                    self.forget(other);
                    if other.id != variant.id {
                        over.push(other.id);
                    }
                }
                stays
            });
            variants.push(Arc::clone(&variant));
        }
        self.bytes.fetch_add(variant.bytes, Relaxed);
        lock(&self.queue).push_back(Arc::downgrade(&variant));
        let evicted = self.make_room();
        let count = evicted.len();
        over.extend(evicted);
        (over, count)
    }

    /// Removes the variants of a target. Returns the numbers of their rows.
    pub fn remove(&self, key: &[u8]) -> Vec<u64> {
        let removed = lock(self.shard(key)).remove(key).unwrap_or_default();
        removed.iter().map(|variant| self.forget(variant)).collect()
    }

    /// Removes one variant, if it is still there.
    pub fn remove_one(&self, variant: &Arc<Variant>) -> Option<u64> {
        let mut shard = lock(self.shard(&variant.key));
        let variants = shard.get_mut(&variant.key)?;
        let at = variants
            .iter()
            .position(|other| Arc::ptr_eq(other, variant))?;
        variants.swap_remove(at);
        if variants.is_empty() {
            shard.remove(&variant.key);
        }
        Some(self.forget(variant))
    }

    /// Removes the variants that `is_over` says. Returns the numbers of their rows.
    pub fn remove_if(&self, is_over: impl Fn(&Variant) -> bool) -> Vec<u64> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|_, variants| {
                variants.retain(|variant| {
                    let goes = is_over(variant);
                    if goes {
                        removed.push(self.forget(variant));
                    }
                    !goes
                });
                !variants.is_empty()
            });
        }
        removed
    }

    /// Removes the variants that were asked for least recently until the rest has room.
    fn make_room(&self) -> Vec<u64> {
        let mut removed = Vec::new();
        let mut chances = 2 * lock(&self.queue).len();
        while self.bytes.load(Relaxed) > self.bytes_max && chances > 0 {
            chances -= 1;
            let Some(oldest) = lock(&self.queue).pop_front() else {
                break;
            };
            let Some(oldest) = oldest.upgrade().filter(|it| !it.is_gone.load(Relaxed)) else {
                continue;
            };
            if oldest.is_used.swap(false, Relaxed) {
                lock(&self.queue).push_back(Arc::downgrade(&oldest));
                continue;
            }
            removed.extend(self.remove_one(&oldest));
        }
        // Those that are gone shall not gather.
        let mut queue = lock(&self.queue);
        if queue.len() > 1_024 && queue.len() > 4 * self.count_near(queue.len()) {
            queue.retain(|variant| variant.strong_count() > 0);
        }
        removed
    }

    /// Returns an estimate of the number of answers, by one part of many.
    fn count_near(&self, at_most: usize) -> usize {
        let first = self.shards.first().map_or(0, |shard| lock(shard).len());
        (first * SHARDS).min(at_most)
    }

    fn forget(&self, variant: &Arc<Variant>) -> u64 {
        if !variant.is_gone.swap(true, Relaxed) {
            self.bytes.fetch_sub(variant.bytes, Relaxed);
        }
        variant.id
    }

    fn shard(&self, key: &[u8]) -> &Mutex<ByKey> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % SHARDS]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{received::Received, stored::Framing};

    fn variant(id: u64, key: &str, body: usize, tag: &str) -> Arc<Variant> {
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nCache-Tag: {tag}, x\r\n");
        let head = Head::parse(head.into()).expect("a head");
        let received = Received {
            head: head.clone(),
            framing: Framing::Length,
            requested_ms: 0,
            received_ms: 0,
        };
        let policy = Policy::new(&Directives::read(&head), &received);
        let stored = Stored::new(head, Framing::Length, vec![0; body].into());
        Arc::new(Variant::new(
            id,
            key.as_bytes(),
            Vary::default(),
            policy,
            Arc::new(stored),
        ))
    }

    fn has(cache: &Cache, key: &str) -> bool {
        let request: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let directives = Directives::default();
        cache
            .select(key.as_bytes(), &request, &directives, 0)
            .is_some_and(|it| it.is_usable)
    }

    #[test]
    fn what_is_asked_for_least_makes_room() {
        let cache = Cache::new(25_000);
        for (id, key) in [(1, "a"), (2, "b")] {
            assert_eq!(cache.insert(variant(id, key, 10_000, "t")), (vec![], 0));
        }
        assert!(has(&cache, "a"));
        assert_eq!(cache.insert(variant(3, "c", 10_000, "t")), (vec![2], 1));
        assert!(has(&cache, "a") && !has(&cache, "b") && has(&cache, "c"));
        assert_eq!(cache.insert(variant(4, "c", 10_000, "t")), (vec![3], 0));
        assert_eq!(cache.remove(b"a"), [1]);
        assert_eq!(
            cache.remove_if(|variant| variant.tags.iter().any(|tag| tag == "t")),
            [4]
        );
        assert_eq!((cache.bytes(), cache.count()), (0, 0));
    }

    #[test]
    fn a_hit_is_ready_as_bytes() {
        let variant = variant(1, "a", 3, "t");
        let request: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let asked = Asked {
            method: "GET",
            target: "/",
            fields: &request,
        };
        let ready = variant.ready(&asked, NAME, 7_900).expect("whole");
        let expected = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nCache-Tag: t, x\r\n\
            age: 7\r\ncache-status: replay-proxy; hit; ttl=52\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(ready.head, expected);
    }
}
