//! The set of lanes that have work for a side. The peer marks lanes, and so may the side itself,
//! which takes them out.

use crate::{
    sync::Ordering::{AcqRel, Relaxed, SeqCst},
    words::Words,
};

/// Bits per word.
const BITS: usize = 64;

/// A set of lanes in two levels: one bit per lane, and above it one bit per word of those bits.
#[derive(Clone, Debug)]
pub struct ReadySet<W> {
    words: W,
    /// Index of the first word of the upper level.
    summary: usize,
    /// Index of the first word of the lower level.
    lanes: usize,
    count: usize,
}

impl<W: Words> ReadySet<W> {
    /// Returns how many words a set of `count` lanes takes.
    pub const fn words_needed(count: usize) -> usize {
        let words = count.div_ceil(BITS);
        words.div_ceil(BITS) + words
    }

    /// Creates a set over [`Self::words_needed`] words from `first` on, which must be zero.
    pub fn new(words: W, first: usize, count: usize) -> Self {
        let lanes = first + count.div_ceil(BITS).div_ceil(BITS);
        Self {
            words,
            summary: first,
            lanes,
            count,
        }
    }

    /// Adds a lane. Whoever takes it out sees everything that was written before.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn mark(&self, lane: usize) {
        assert!(lane < self.count, "lane {lane} of {}", self.count);
        let word = lane / BITS;
        // E4: after the writes that make the lane ready. It is SeqCst, because E5 needs the mark
        // before the check of whether the other side is parked. The instruction is the same.
        let before = self
            .words
            .word(self.lanes + word)
            .fetch_or(1 << (lane % BITS), SeqCst);
        // If the word was not empty, whoever filled it has set the bit above or will set it, and
        // the taker clears that bit before it empties this word.
        if before == 0 {
            let above = self.words.word(self.summary + word / BITS);
            above.fetch_or(1 << (word % BITS), SeqCst);
        }
    }

    /// Takes all lanes out and appends them to `taken`, in ascending order. Lanes that don't exist,
    /// which only a lying peer marks, are left out.
    pub fn take(&self, taken: &mut Vec<usize>) {
        let words = self.count.div_ceil(BITS);
        for above in 0..words.div_ceil(BITS) {
            for word in take_bits(self.words.word(self.summary + above)) {
                let word = above * BITS + word;
                if word >= words {
                    continue;
                }
                let lanes = take_bits(self.words.word(self.lanes + word));
                let lanes = lanes.map(|lane| word * BITS + lane);
                taken.extend(lanes.filter(|lane| *lane < self.count));
            }
        }
    }

    /// Returns whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        let words = self.count.div_ceil(BITS).div_ceil(BITS);
        (0..words).all(|above| self.words.word(self.summary + above).load(Relaxed) == 0)
    }
}

/// Empties a word and returns the positions of its bits.
fn take_bits(word: &crate::sync::AtomicU64) -> impl Iterator<Item = usize> + use<> {
    let mut bits = match word.load(Relaxed) {
        0 => 0,
        // E4, the other half.
        _ => word.swap(0, AcqRel),
    };
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(bit)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::words::HeapWords;

    #[test]
    fn what_is_marked_is_taken_once() {
        for count in [1, 63, 64, 65, 4096] {
            let words = HeapWords::new(ReadySet::<HeapWords>::words_needed(count));
            let set = ReadySet::new(words, 0, count);
            let lanes: Vec<usize> = (0..count).step_by(7).collect();
            assert!(set.is_empty());
            for lane in lanes.iter().chain(&lanes) {
                set.mark(*lane);
            }
            assert!(!set.is_empty());
            let mut taken = Vec::new();
            set.take(&mut taken);
            assert_eq!(taken, lanes);
            set.take(&mut taken);
            assert_eq!(taken.len(), lanes.len());
            assert!(set.is_empty());
        }
    }

    #[test]
    fn lanes_that_a_peer_makes_up_are_left_out() {
        let words = HeapWords::new(ReadySet::<HeapWords>::words_needed(70));
        for index in 0..3 {
            words.word(index).store(u64::MAX, Relaxed);
        }
        let set = ReadySet::new(words, 0, 70);
        let mut taken = Vec::new();
        set.take(&mut taken);
        assert_eq!(taken, (0..70).collect::<Vec<_>>());
    }
}
