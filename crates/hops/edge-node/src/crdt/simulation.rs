//! Goal: nodes agree after whatever the network did. Method: thousands of random schedules of
//! counts, exchanges, losses, duplicates, reorderings, partitions and restarts, in one thread and
//! repeatable by their seeds.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    gossip::Exchange,
    state::{ActorId, Totals},
    store::{Kind, Slot, Store},
    wire::Codec,
};

const NOW_MS: u64 = 1_000_000;
const KEYS: u128 = 5;

/// Keys above those of the shards' crowds.
fn slot(key: u128) -> Slot {
    Slot::at(1_000 + key % KEYS, 10_000, NOW_MS)
}

struct Cluster {
    random: fastrand::Rng,
    nodes: Vec<Exchange>,
    /// Whether messages pass from one node to another.
    open: Vec<Vec<bool>>,
    on_the_way: Vec<Flight>,
    starts: u8,
    /// How far the actors counted, gone or not.
    truth: BTreeMap<(ActorId, Slot), Totals>,
    /// How far the others knew that those that are gone had counted.
    known: BTreeMap<(ActorId, Slot), Totals>,
}

/// A message on its way.
#[derive(Clone)]
struct Flight {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
    is_answer: bool,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(3..6);
        let mut cluster = Self {
            random,
            nodes: Vec::new(),
            open: vec![vec![true; count]; count],
            on_the_way: Vec::new(),
            starts: 0,
            truth: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        for _ in 0..count {
            let node = cluster.start(count);
            cluster.nodes.push(node);
        }
        cluster
    }

    fn start(&mut self, count: usize) -> Exchange {
        self.starts += 1;
        let store = Store::new(ActorId::from_bytes([self.starts; 16]), 100_000);
        Exchange::new(Arc::new(store), Codec::new(b""), count)
    }

    fn step(&mut self) {
        let node = self.random.usize(0..self.nodes.len());
        match self.random.u32(0..100) {
            0..40 => self.count(node),
            40..60 => {
                let to = self.random.usize(0..self.nodes.len());
                self.offer(node, to);
            }
            60..90 => self.deliver(true),
            90..95 => {
                let to = self.random.usize(0..self.nodes.len());
                self.open[node][to] = self.random.bool();
            }
            95..97 => self.on_the_way.clear(),
            97..98 => self.restart(node),
            _ => self.nodes[node].store().expire(NOW_MS),
        }
    }

    fn count(&mut self, node: usize) {
        let slot = slot(self.random.u128(..));
        let store = self.nodes[node].store();
        let totals = self.truth.entry((store.actor(), slot)).or_default();
        match (kind(slot), self.random.u32(0..4)) {
            (Kind::Shared, down) => {
                let counter = store.shared(slot).expect("room");
                match down {
                    0 => counter.decrement(1),
                    _ => counter.increment(1),
                }
                *totals = counter.own();
            }
            (Kind::Keyed, 0) if totals.value() > 0 => {
                store.take_back(slot);
                totals.downs += 1;
            }
            (Kind::Keyed, _) => {
                store.count_if(slot, |_, _| (true, ()));
                totals.ups += 1;
            }
        }
    }

    fn offer(&mut self, from: usize, to: usize) {
        let bytes = self.nodes[from].offer(to).expect("a peer");
        self.send(Flight {
            from,
            to,
            bytes,
            is_answer: false,
        });
    }

    fn send(&mut self, flight: Flight) {
        if self.on_the_way.len() < 64 {
            self.on_the_way.push(flight);
        }
    }

    /// Delivers any message on its way; if `is_bad`, it may get lost, or be delivered again.
    fn deliver(&mut self, is_bad: bool) {
        if self.on_the_way.is_empty() {
            return;
        }
        let index = self.random.usize(0..self.on_the_way.len());
        let flight = match is_bad && self.random.u32(0..4) == 0 {
            true => self.on_the_way[index].clone(),
            false => self.on_the_way.swap_remove(index),
        };
        let Flight { from, to, .. } = flight;
        let is_lost = is_bad && (!self.open[from][to] || self.random.u32(0..4) == 0);
        if is_lost || from == to {
            return;
        }
        if flight.is_answer {
            // A node that started again meanwhile may get an answer to what it never said, and a
            // message of its own from before.
            self.nodes[to]
                .heard(from, &flight.bytes, NOW_MS)
                .expect("taken");
            return;
        }
        let (bytes, _) = self.nodes[to].answer(&flight.bytes, NOW_MS).expect("taken");
        self.send(Flight {
            from: to,
            to: from,
            bytes,
            is_answer: true,
        });
    }

    fn restart(&mut self, node: usize) {
        if self.starts > 20 {
            return;
        }
        let gone = self.nodes[node].store().actor();
        for key in 0..KEYS {
            self.known.insert((gone, slot(key)), Totals::default());
        }
        // What this node alone knew of those that went before is lost as well.
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        for ((actor, slot), known) in &mut self.known {
            let others = others
                .clone()
                .map(|other| totals(&self.nodes[other], *slot, *actor));
            *known = others.fold(Totals::default(), Totals::max);
        }
        self.nodes[node] = self.start(self.nodes.len());
    }

    /// Lets every node speak with every other, with nothing lost, until all is said.
    fn heal(&mut self) {
        for _ in 0..10 {
            for from in 0..self.nodes.len() {
                for to in 0..self.nodes.len() {
                    self.offer(from, to);
                }
                while !self.on_the_way.is_empty() {
                    self.deliver(false);
                }
            }
        }
    }

    /// Asserts that all nodes say the same, and the truth, and returns what was lost with actors.
    fn check(&self, seed: u64) -> u64 {
        let mut lost = 0;
        for key in 0..KEYS {
            let slot = slot(key);
            let first = value(&self.nodes[0], slot);
            for node in &self.nodes {
                assert_eq!(
                    value(node, slot),
                    first,
                    "seed {seed}: nodes differ in {slot:?}"
                );
            }
            let mut sum = 0;
            for ((actor, counted), truth) in &self.truth {
                if *counted != slot {
                    continue;
                }
                let here = totals(&self.nodes[0], slot, *actor);
                match self.known.get(&(*actor, slot)) {
                    None => assert_eq!(here, *truth, "seed {seed}: {actor} lives"),
                    Some(known) => {
                        assert_eq!(here.max(*known), here, "seed {seed}: {actor} was known");
                        assert_eq!(
                            here.max(*truth),
                            *truth,
                            "seed {seed}: {actor} never said so"
                        );
                        lost += truth.ups - here.ups;
                    }
                }
                sum += here.value();
            }
            assert_eq!(sum.max(0), first.max(0), "seed {seed}: {slot:?}");
        }
        lost
    }
}

fn kind(slot: Slot) -> Kind {
    match slot.key.is_multiple_of(2) {
        true => Kind::Keyed,
        false => Kind::Shared,
    }
}

fn totals(node: &Exchange, slot: Slot, actor: ActorId) -> Totals {
    let store = node.store();
    match kind(slot) {
        Kind::Shared => store.shared(slot).expect("room").state().totals(actor),
        Kind::Keyed => {
            let (items, ..) = store.changed(0, usize::MAX);
            let item = items.iter().find(|item| item.slot == slot);
            item.map(|item| item.state.totals(actor))
                .unwrap_or_default()
        }
    }
}

fn value(node: &Exchange, slot: Slot) -> i64 {
    match kind(slot) {
        Kind::Shared => node.store().shared(slot).expect("room").value(),
        Kind::Keyed => i64::try_from(node.store().value(slot)).expect("small"),
    }
}

#[test]
fn nodes_agree_after_whatever_happened() {
    let mut lost = 0;
    let seeds = if cfg!(debug_assertions) { 100 } else { 10_000 };
    for seed in 0..seeds {
        let mut cluster = Cluster::new(seed);
        let steps = cluster.random.usize(20..300);
        for _ in 0..steps {
            cluster.step();
        }
        cluster.heal();
        lost += cluster.check(seed);
    }
    assert!(lost > 0, "some schedules lose what a node never said");
}

/// Many more counters than fit into a message pass in several.
#[test]
fn a_new_node_learns_everything() {
    let cluster = Cluster::new(1);
    for key in 0..20_000 {
        let slot = Slot::at(1 << 64 | key, 10_000, NOW_MS);
        cluster.nodes[0].store().count_if(slot, |_, _| (true, ()));
    }
    let mut rounds = 0;
    loop {
        rounds += 1;
        let offer = cluster.nodes[1].offer(0).expect("a peer");
        let (answer, _) = cluster.nodes[0].answer(&offer, NOW_MS).expect("taken");
        if !cluster.nodes[1]
            .heard(0, &answer, NOW_MS)
            .expect("taken")
            .more
        {
            break;
        }
        assert!(rounds < 50, "no end");
    }
    assert_eq!(cluster.nodes[1].store().counts().keyed, 20_000);
    for _ in 0..20 {
        let offer = cluster.nodes[1].offer(0).expect("a peer");
        let (answer, _) = cluster.nodes[0].answer(&offer, NOW_MS).expect("taken");
        cluster.nodes[1].heard(0, &answer, NOW_MS).expect("taken");
    }
    // Without changes, nothing but the sweep is sent again.
    let offers = (0..8).map(|_| cluster.nodes[1].offer(0).expect("a peer").len());
    assert!(offers.filter(|bytes| *bytes < 200).count() >= 7);
}
