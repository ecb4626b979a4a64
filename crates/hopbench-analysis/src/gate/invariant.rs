//! A rule between two paths, such as `a.rps >= 1.5 * b.rps where endpoint = /small`.
//!
//! ```text
//! RULE  = PATH.FIGURE OP NUMBER * PATH.FIGURE [where KEY = VALUE [or VALUE]… [and KEY = …]…]
//! OP    = >= | <=
//! ```

use std::{fmt, str::FromStr};

use serde::Deserialize;

use super::{filter::Filter, policy::Limit};
use crate::figures::Figure;

/// What `left` has over `right`, in the same block of otherwise equal cells, is within the limit.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
pub struct Invariant {
    pub left: Operand,
    pub limit: Limit,
    pub right: Operand,
    /// Of no path: the rule names its own.
    pub filter: Filter,
}

/// A figure of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    pub path: String,
    pub figure: Figure,
}

/// Reads words from the left.
struct Words<'a> {
    rule: &'a str,
    /// In bytes.
    position: usize,
}

impl FromStr for Invariant {
    type Err = String;

    fn from_str(rule: &str) -> Result<Self, String> {
        let mut words = Words { rule, position: 0 };
        let left = words.operand()?;
        let limit = words.take("'>=' or '<='", |word| match word {
            ">=" => Ok(Limit::AtLeast as fn(f64) -> Limit),
            "<=" => Ok(Limit::AtMost as fn(f64) -> Limit),
            _ => Err(()),
        })?;
        let number = words.take("a number above 0", |word| {
            let number = word.parse::<f64>().map_err(|_| ())?;
            match number.is_finite() && number > 0.0 {
                true => Ok(number),
                false => Err(()),
            }
        })?;
        words.take("'*'", |word| is(word, "*"))?;
        let right = words.operand()?;
        if left.figure != right.figure {
            return Err(words.error(
                words.position - right.to_string().len(),
                &format!("a figure like the left one, '{}'", left.figure.key()),
            ));
        }
        if left.path == right.path {
            return Err(words.error(
                words.position - right.to_string().len(),
                &format!("another path than '{}'", left.path),
            ));
        }
        let mut filter = Filter::default();
        if !words.is_at_end() {
            words.take("'where' or the end", |word| is(word, "where"))?;
            words.conditions(&mut filter)?;
        }
        Ok(Self {
            left,
            limit: limit(number),
            right,
            filter,
        })
    }
}

fn is(word: &str, expected: &str) -> Result<(), ()> {
    if word == expected { Ok(()) } else { Err(()) }
}

impl<'a> Words<'a> {
    /// The next word, what it is read as, or what was expected in its place.
    fn take<T>(
        &mut self,
        expected: &str,
        read: impl FnOnce(&'a str) -> Result<T, ()>,
    ) -> Result<T, String> {
        let (start, word) = self.peek();
        match read(word) {
            Ok(read) => {
                self.position = start + word.len();
                Ok(read)
            }
            Err(()) => Err(self.error(start, expected)),
        }
    }

    /// Where the next word starts, and the word; empty at the end.
    fn peek(&self) -> (usize, &'a str) {
        let rest = &self.rule[self.position..];
        let word = rest.trim_start();
        let start = self.rule.len() - word.len();
        (start, word.split_whitespace().next().unwrap_or_default())
    }

    fn is_at_end(&self) -> bool {
        self.peek().1.is_empty()
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let figures = Figure::ALL.map(Figure::key).join(", ");
        let expected = format!("a path, '.' and one of {figures}");
        self.take(&expected, |word| {
            let (path, key) = word.rsplit_once('.').ok_or(())?;
            let mut figures = Figure::ALL.into_iter();
            let figure = figures.find(|figure| figure.key() == key).ok_or(())?;
            match path {
                "" => Err(()),
                path => Ok(Operand {
                    path: path.to_owned(),
                    figure,
                }),
            }
        })
    }

    /// `KEY = VALUE [or VALUE]… [and KEY = …]…`, into the filter; each key once.
    fn conditions(&mut self, filter: &mut Filter) -> Result<(), String> {
        let mut keys = vec!["scenario", "endpoint", "concurrency", "rate", "keep-alive"];
        loop {
            let expected = format!("one of {}", keys.join(", "));
            let index = self.take(&expected, |word| {
                keys.iter().position(|key| *key == word).ok_or(())
            })?;
            let key = keys.remove(index);
            self.take("'=' between spaces", |word| is(word, "="))?;
            self.value(key, filter)?;
            while self.peek().1 == "or" {
                self.take("'or'", |word| is(word, "or"))?;
                self.value(key, filter)?;
            }
            if self.is_at_end() {
                return Ok(());
            }
            self.take("'and', 'or' or the end", |word| is(word, "and"))?;
        }
    }

    fn value(&mut self, key: &str, filter: &mut Filter) -> Result<(), String> {
        let text = |word: &str| match word {
            "" => Err(()),
            word => Ok(word.to_owned()),
        };
        let number = |word: &str| word.parse::<u32>().map_err(|_| ());
        match key {
            "scenario" => filter.scenario.0.push(self.take("a scenario", text)?),
            "endpoint" => filter.endpoint.0.push(self.take("an endpoint", text)?),
            "concurrency" => {
                let number = self.take("a number of connections", number)?;
                filter.concurrency.0.push(number);
            }
            "rate" => {
                let number = self.take("requests per second", number)?;
                filter.rate.0.push(number);
            }
            // There are only two: either of them is whichever.
            _ if filter.keep_alive.is_some() => {
                return Err(self.error(self.peek().0, "'and' or the end"));
            }
            _ => {
                let is = self.take("true or false", |word| word.parse().map_err(|_| ()))?;
                filter.keep_alive = Some(is);
            }
        }
        Ok(())
    }

    fn error(&self, start: usize, expected: &str) -> String {
        let column = self.rule[..start].chars().count() + 1;
        let found = match self.rule[start..].split_whitespace().next() {
            Some(word) => format!("'{word}'"),
            None => "the end".to_owned(),
        };
        format!(
            "rule '{}', column {column}: expected {expected}, found {found}; a rule is such as \
             'a.rps >= 1.5 * b.rps where endpoint = /small and concurrency = 1 or 8'",
            self.rule
        )
    }
}

impl TryFrom<String> for Invariant {
    type Error = String;

    fn try_from(rule: String) -> Result<Self, String> {
        rule.parse()
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            left,
            limit,
            right,
            filter,
        } = self;
        write!(f, "{left} {limit} * {right}")?;
        if *filter != Filter::default() {
            write!(f, " where {filter}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.path, self.figure.key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::filter::{Numbers, Texts};

    fn operand() -> impl Strategy<Value = (String, usize)> {
        ("[a-z0-9_+.-]{1,12}", 0..Figure::ALL.len())
    }

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_is_written(
            (left, figure) in operand(),
            (right, _) in operand(),
            at_least in any::<bool>(),
            number in 1e-6..1e6,
            scenario in prop::collection::vec("[a-z-]{1,8}", 0..3),
            endpoint in prop::collection::vec("/[a-z0-9/?=&:]{0,12}", 0..3),
            concurrency in prop::collection::vec(any::<u32>(), 0..3),
            rate in prop::collection::vec(any::<u32>(), 0..3),
            keep_alive in any::<Option<bool>>(),
        ) {
            prop_assume!(left != right);
            let figure = Figure::ALL[figure];
            let rule = Invariant {
                left: Operand { path: left, figure },
                limit: if at_least { Limit::AtLeast(number) } else { Limit::AtMost(number) },
                right: Operand { path: right, figure },
                filter: Filter {
                    scenario: Texts(scenario),
                    endpoint: Texts(endpoint),
                    path: Texts::default(),
                    concurrency: Numbers(concurrency),
                    rate: Numbers(rate),
                    keep_alive,
                },
            };
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn nothing_panics(rule in "\\PC{0,40}") {
            let _ = rule.parse::<Invariant>();
        }
    }

    #[test]
    fn a_path_is_not_judged_by_itself() {
        let message = "a.rps >= 1 * a.rps".parse::<Invariant>();
        let message = message.expect_err("it always is");
        assert!(
            message.contains("column 14: expected another path than 'a', found 'a.rps'"),
            "{message}"
        );
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (rule, place) in [
            ("", "column 1: expected a path, '.' and one of rps, p50"),
            (
                "rps >= 1 * b.rps",
                "column 1: expected a path, '.' and one of",
            ),
            (
                "a.rsp >= 1 * b.rps",
                "column 1: expected a path, '.' and one of",
            ),
            (
                "a.rps > 1 * b.rps",
                "column 7: expected '>=' or '<=', found '>'",
            ),
            (
                "a.rps >= x * b.rps",
                "column 10: expected a number above 0, found 'x'",
            ),
            (
                "a.rps >= -1 * b.rps",
                "column 10: expected a number above 0",
            ),
            (
                "a.rps >= inf * b.rps",
                "column 10: expected a number above 0",
            ),
            ("a.rps >= 1 b.rps", "column 12: expected '*', found 'b.rps'"),
            ("a.rps >= 1 *", "column 13: expected a path, '.' and one of"),
            (
                "a.rps >= 1 * b.p95",
                "column 14: expected a figure like the left one, 'rps'",
            ),
            (
                "a.rps >= 1 * b.rps when",
                "column 20: expected 'where' or the end",
            ),
            (
                "a.rps >= 1 * b.rps where",
                "column 25: expected one of scenario, endpoint",
            ),
            (
                "a.rps >= 1 * b.rps where path = a",
                "column 26: expected one of scenario",
            ),
            (
                "é.rps >= 1 * b.rps where endpoint=/",
                "column 26: expected one of scenario",
            ),
            (
                "a.rps >= 1 * b.rps where rate = x",
                "column 33: expected requests per second",
            ),
            (
                "a.rps >= 1 * b.rps where rate = 1 and rate = 2",
                "column 39: expected one of",
            ),
            (
                "a.rps >= 1 * b.rps where rate = 1 2",
                "column 35: expected 'and', 'or' or the end",
            ),
        ] {
            let message = rule.parse::<Invariant>().expect_err(rule);
            assert!(message.contains(place), "{rule}: {message}");
            assert!(
                message.starts_with(&format!("rule '{rule}', ")),
                "{message}"
            );
        }
    }
}
