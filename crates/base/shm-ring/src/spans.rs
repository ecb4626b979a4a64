//! The parts of a lane's buffer that are in use. Private to the sender.

use std::collections::VecDeque;

/// A range of bytes in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
}

/// Hands out parts of a buffer in order, and takes them back in the same order.
///
/// An empty buffer starts over at its beginning, so that a lane with little traffic uses the same
/// few cache lines again and again.
#[derive(Debug)]
pub struct Spans {
    capacity: u32,
    /// End of the youngest span.
    end: u32,
    in_use: VecDeque<Span>,
}

impl Spans {
    /// Creates the bookkeeping for a buffer of `capacity` bytes, all of which are free.
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity,
            end: 0,
            in_use: VecDeque::new(),
        }
    }

    /// Returns the free parts, in the order in which they must be taken. The first is empty only if
    /// both are.
    pub fn free(&self) -> [Span; 2] {
        let span = |offset, end| Span {
            offset,
            length: end - offset,
        };
        match self.in_use.front() {
            None => [span(0, self.capacity), Span::default()],
            Some(oldest) if self.end == self.capacity => [span(0, oldest.offset), Span::default()],
            Some(oldest) if self.end > oldest.offset => {
                [span(self.end, self.capacity), span(0, oldest.offset)]
            }
            Some(oldest) => [span(self.end, oldest.offset), Span::default()],
        }
    }

    /// Takes the first `length` bytes of `free()[0]`.
    ///
    /// # Panics
    /// If fewer bytes are free there, or `length` is 0.
    pub fn take(&mut self, length: u32) -> Span {
        let [from, _] = self.free();
        assert!((1..=from.length).contains(&length), "{length} of {from:?}");
        let span = Span {
            offset: from.offset,
            length,
        };
        self.end = span.offset + length;
        self.in_use.push_back(span);
        span
    }

    /// Takes back the oldest span.
    ///
    /// # Panics
    /// If nothing is in use.
    pub fn give_back(&mut self) -> Span {
        self.in_use.pop_front().expect("a span is in use")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle is a map of every byte.
        #[test]
        fn no_byte_is_handed_out_twice(steps in prop::collection::vec(0_u32..40, 1..200)) {
            let mut spans = Spans::new(64);
            let mut used = [false; 64];
            let mut oldest = VecDeque::new();
            for step in steps {
                let [first, second] = spans.free();
                let free: u32 = first.length + second.length;
                let really = used.iter().filter(|used| !**used).count();
                prop_assert_eq!(free as usize, really);
                // If anything is free, the first part is not empty.
                prop_assert!(first.length > 0 || free == 0);
                if step < 30 && first.length > 0 {
                    let span = spans.take(1 + step % first.length);
                    for byte in span.offset..span.offset + span.length {
                        prop_assert!(!std::mem::replace(&mut used[byte as usize], true));
                    }
                    oldest.push_back(span);
                } else if let Some(span) = oldest.pop_front() {
                    prop_assert_eq!(spans.give_back(), span);
                    for byte in span.offset..span.offset + span.length {
                        used[byte as usize] = false;
                    }
                }
            }
        }
    }
}
