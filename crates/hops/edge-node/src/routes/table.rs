//! The compiled routes.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use foldhash::fast::RandomState;

use super::{
    host::Hosts,
    pattern::{Checked, Problem, Route, RouteError, Shape},
    regexes::{Parsed, Regexes},
    slots::{Methods, NO_RANK, Slot, Slots},
    trie::Trie,
};

/// Most routes of a table.
const ROUTES_MAX: usize = 200_000;

/// All routes, compiled. A look-up allocates nothing.
#[derive(Debug)]
pub struct Table<T> {
    hosts: Hosts,
    groups: Vec<Group>,
    methods: Methods,
    /// By rank: the index of the route as it was given, and its destination.
    targets: Vec<(usize, T)>,
}

/// The route that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'a, T> {
    /// Index of the route among those that the table was compiled of.
    pub index: usize,
    /// The destination.
    pub target: &'a T,
}

/// The routes of one host pattern.
#[derive(Debug)]
struct Group {
    exact: HashMap<Box<str>, Slots, RandomState>,
    trie: Trie,
    regexes: Regexes,
}

impl<T> Table<T> {
    /// Compiles routes.
    ///
    /// # Errors
    /// If one can't be used, or two are the same. The error has the index of the route.
    pub fn compile(routes: Vec<Route<T>>) -> Result<Self, RouteError> {
        if routes.len() > ROUTES_MAX {
            let problem = Problem::TooManyRoutes(ROUTES_MAX);
            return Err(RouteError {
                index: ROUTES_MAX,
                problem,
            });
        }
        let mut methods = Methods::default();
        let mut checked = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            let fail = |problem| RouteError { index, problem };
            let mask = methods.mask(&route.methods).map_err(fail)?;
            checked.push((route.check().map_err(fail)?, mask));
        }
        refuse_same(&routes, &checked)?;
        let order = order(&routes, &checked);
        let mut hosts = Hosts::default();
        let groups = group(&checked, &order, &mut hosts)?;
        let mut targets: Vec<Option<T>> =
            routes.into_iter().map(|route| Some(route.target)).collect();
        let by_rank = order
            .iter()
            .filter_map(|index| Some((*index, targets[*index].take()?)));
        Ok(Self {
            targets: by_rank.collect(),
            hosts,
            groups,
            methods,
        })
    }

    /// Returns how many routes there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Returns whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Finds the route of a request. The host may have any case and a port; the path has no query.
    pub fn find(&self, host: &str, method: &str, path: &str) -> Option<Match<'_, T>> {
        let method = self.methods.bit(method);
        let mut best = NO_RANK;
        self.hosts.each(host, |group| {
            self.groups[group].find(method, path, &mut best);
        });
        let (index, target) = self.targets.get(best as usize)?;
        Some(Match {
            index: *index,
            target,
        })
    }
}

impl Group {
    fn new() -> Self {
        Self {
            exact: HashMap::default(),
            trie: Trie::new(),
            regexes: Regexes::new(),
        }
    }

    #[inline]
    fn find(&self, method: u32, path: &str, best: &mut u32) {
        if let Some(slots) = self.exact.get(path) {
            slots.find(method, best);
        }
        if self.trie.best() < *best {
            self.trie.find(path, method, best);
        }
        if self.regexes.best() < *best {
            self.regexes.find(path, method, best);
        }
    }
}

/// Refuses routes of which one would never be used.
fn refuse_same<T>(routes: &[Route<T>], checked: &[(Checked, u32)]) -> Result<(), RouteError> {
    let mut known: HashMap<&Checked, Vec<(u32, usize)>> = HashMap::new();
    for (index, (checked, mask)) in checked.iter().enumerate() {
        let earlier = known.entry(checked).or_default();
        let is_same = |other: u32| match (*mask == u32::MAX, other == u32::MAX) {
            (false, false) => mask & other != 0,
            (one, other) => one && other,
        };
        if let Some((_, first)) = earlier.iter().find(|(other, _)| is_same(*other)) {
            let path = super::pattern::shown(routes[index].path.as_str());
            let problem = Problem::Same {
                first: *first,
                path,
            };
            return Err(RouteError { index, problem });
        }
        earlier.push((*mask, index));
    }
    Ok(())
}

/// Returns the indices of the routes by rank, as the module's head says.
fn order<T>(routes: &[Route<T>], checked: &[(Checked, u32)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_cached_key(|index| {
        let (route, mask) = &checked[*index];
        (
            Reverse(routes[*index].priority),
            route.host.specificity(),
            route.shape.specificity(),
            *mask == u32::MAX,
            *index,
        )
    });
    order
}

/// Puts the routes into their groups.
fn group(
    checked: &[(Checked, u32)],
    order: &[usize],
    hosts: &mut Hosts,
) -> Result<Vec<Group>, RouteError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut regexes: HashMap<usize, Vec<(Slot, Parsed, &str)>> = HashMap::new();
    for (rank, index) in (0u32..).zip(order) {
        let (Checked { host, shape }, methods) = &checked[*index];
        let slot = Slot {
            rank,
            methods: *methods,
        };
        let number = hosts.group(host, groups.len());
        if number == groups.len() {
            groups.push(Group::new());
        }
        let group = &mut groups[number];
        match shape {
            Shape::Exact(path) => match group.exact.entry(path.as_str().into()) {
                Entry::Occupied(mut known) => known.get_mut().push(slot),
                Entry::Vacant(free) => free.insert(Slots::default()).push(slot),
            },
            Shape::Tree { segments, end } => group.trie.insert(segments, *end, slot),
            Shape::Regex(text) => {
                let parsed = Parsed::new(text).map_err(|problem| RouteError {
                    index: *index,
                    problem,
                })?;
                regexes
                    .entry(number)
                    .or_default()
                    .push((slot, parsed, text));
            }
        }
    }
    for (number, parsed) in regexes {
        groups[number].regexes = Regexes::build(parsed).map_err(|(rank, problem)| RouteError {
            index: order[rank as usize],
            problem,
        })?;
    }
    Ok(groups)
}
