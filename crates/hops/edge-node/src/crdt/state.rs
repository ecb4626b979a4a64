//! The state of one counter, as nodes exchange it.

use std::{fmt, io};

/// Most actors of one counter, ourselves apart. Each start of a node is an actor, and a counter
/// lives for a day at most.
pub const ACTORS_MAX: usize = 128;

/// Largest count of an actor: at a million per second, it is reached after nine years. A sum over
/// all actors can't overflow.
pub const COUNT_MAX: u64 = 1 << 48;

/// One start of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(u128);

/// How far an actor has counted. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Sum of the increments.
    pub ups: u64,
    /// Sum of the decrements.
    pub downs: u64,
}

/// The counts of some actors. Merging is idempotent, commutative and associative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By actor.
    actors: Vec<(ActorId, Totals)>,
}

/// The effect of a merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// How much the value changed.
    pub change: i64,
    /// Whether a count grew.
    pub grew: bool,
    /// Counts that were refused: too large, of too many actors, or said to be ours.
    pub refused: usize,
}

impl ActorId {
    /// Returns a new actor, different from all others.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from_bytes(bytes))
    }

    /// Returns the actor with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns the bytes of the actor.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Totals {
    /// Returns the increments without the decrements.
    pub fn value(self) -> i64 {
        let side = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        side(self.ups).saturating_sub(side(self.downs))
    }

    /// Returns whether no count is above the largest.
    pub fn is_possible(self) -> bool {
        self.ups <= COUNT_MAX && self.downs <= COUNT_MAX
    }

    /// Returns the larger of each count.
    pub fn max(self, other: Self) -> Self {
        Self {
            ups: self.ups.max(other.ups),
            downs: self.downs.max(other.downs),
        }
    }
}

impl State {
    /// Returns the counts, by actor.
    pub fn actors(&self) -> &[(ActorId, Totals)] {
        &self.actors
    }

    /// Returns how far an actor has counted.
    pub fn totals(&self, actor: ActorId) -> Totals {
        match self.place(actor) {
            Ok(index) => self.actors[index].1,
            Err(_) => Totals::default(),
        }
    }

    /// Returns the sum over all actors.
    pub fn value(&self) -> i64 {
        let values = self.actors.iter().map(|(_, totals)| totals.value());
        values.fold(0, i64::saturating_add)
    }

    /// Raises the counts of one actor to these, where they are higher.
    pub fn raise(&mut self, actor: ActorId, totals: Totals) -> Merged {
        let refused = Merged {
            refused: 1,
            ..Merged::default()
        };
        if !totals.is_possible() {
            return refused;
        }
        match self.place(actor) {
            Ok(index) => {
                let known = &mut self.actors[index].1;
                let after = known.max(totals);
                let merged = Merged {
                    change: after.value() - known.value(),
                    grew: after != *known,
                    refused: 0,
                };
                *known = after;
                merged
            }
            Err(_) if self.actors.len() >= ACTORS_MAX => refused,
            Err(index) => {
                self.actors.insert(index, (actor, totals));
                Merged {
                    change: totals.value(),
                    grew: true,
                    refused: 0,
                }
            }
        }
    }

    /// Raises the counts of every actor to those of `other`, where they are higher.
    pub fn merge(&mut self, other: &Self) -> Merged {
        let mut merged = Merged::default();
        for (actor, totals) in &other.actors {
            merged.add(self.raise(*actor, *totals));
        }
        merged
    }

    fn place(&self, actor: ActorId) -> Result<usize, usize> {
        self.actors
            .binary_search_by_key(&actor, |(known, _)| *known)
    }
}

impl Merged {
    pub(super) fn add(&mut self, other: Self) {
        self.change += other.change;
        self.grew |= other.grew;
        self.refused += other.refused;
    }
}

impl FromIterator<(ActorId, Totals)> for State {
    /// Takes the counts that are possible, up to the most actors.
    fn from_iter<I: IntoIterator<Item = (ActorId, Totals)>>(all: I) -> Self {
        let mut state = Self::default();
        for (actor, totals) in all {
            state.raise(actor, totals);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = State> {
        let actor = (0..6u8).prop_map(|byte| ActorId::from_bytes([byte; 16]));
        let totals = (0..100u64, 0..100u64).prop_map(|(ups, downs)| Totals { ups, downs });
        prop::collection::vec((actor, totals), 0..8).prop_map(|all| all.into_iter().collect())
    }

    fn merged(one: &State, other: &State) -> State {
        let mut state = one.clone();
        let before = state.value();
        let merged = state.merge(other);
        assert_eq!(state.value(), before + merged.change);
        assert_eq!(merged.grew, state != *one);
        state
    }

    proptest! {
        #[test]
        fn merges_are_idempotent_commutative_and_associative(
            a in states(), b in states(), c in states(),
        ) {
            prop_assert_eq!(&merged(&a, &a), &a);
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        #[test]
        fn no_count_of_an_actor_shrinks(a in states(), b in states()) {
            let both = merged(&a, &b);
            for (actor, totals) in a.actors().iter().chain(b.actors()) {
                let after = both.totals(*actor);
                prop_assert!(after.ups >= totals.ups && after.downs >= totals.downs);
            }
        }
    }

    #[test]
    fn impossible_counts_and_too_many_actors_are_refused() {
        let mut state = State::default();
        let huge = Totals {
            ups: COUNT_MAX + 1,
            downs: 0,
        };
        assert_eq!(state.raise(ActorId::from_bytes([1; 16]), huge).refused, 1);
        let most = Totals {
            ups: COUNT_MAX,
            downs: 0,
        };
        for number in 0..=ACTORS_MAX as u128 {
            let merged = state.raise(ActorId(number), most);
            assert_eq!(merged.refused == 0, number < ACTORS_MAX as u128);
        }
        assert_eq!(
            state.value(),
            i64::try_from(COUNT_MAX * ACTORS_MAX as u64).expect("fits")
        );
    }
}
