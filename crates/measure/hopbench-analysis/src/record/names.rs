//! Names of cells, builds and failures in sentences and tables.

use std::fmt;

use super::{Build, Cell, FailureKind, Placement};

impl Cell {
    /// Describes the load in short: connections, and the rate if there is one.
    pub fn load(&self) -> String {
        let up_to = if self.staged { "up to " } else { "" };
        match self.rate_rps {
            None => format!("{up_to}{}", self.concurrency),
            Some(rate) => format!("{} at {up_to}{rate}/s", self.concurrency),
        }
    }

    /// Returns the words for connections and placement that follow the name of the endpoint.
    pub(crate) fn setting(&self) -> String {
        setting(self.keep_alive, self.placement)
    }

    /// Names the path, and the build if there are two.
    pub fn path_and_build(&self) -> String {
        match self.build {
            None => self.path.clone(),
            Some(build) => format!("{} ({build})", self.path),
        }
    }

    /// Returns the same cell without a build.
    pub fn without_build(&self) -> Self {
        Self {
            build: None,
            ..self.clone()
        }
    }

    /// Names the cell in a sentence about more than one scenario.
    pub fn full_name(&self) -> String {
        format!("{} {self}", self.scenario)
    }
}

/// Returns the words for connections and placement that follow the name of an endpoint.
pub(crate) fn setting(keep_alive: bool, placement: Placement) -> String {
    let connection = match keep_alive {
        true => "",
        false => ", a new connection per request",
    };
    format!("{connection}{}", placement.after_endpoint())
}

impl fmt::Display for Cell {
    /// Names the cell in a sentence about its scenario.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keep_alive = if self.keep_alive {
            ""
        } else {
            ", no keep-alive"
        };
        let Self {
            path,
            endpoint,
            build,
            placement,
            ..
        } = self;
        let placement = match placement {
            Placement::Free => String::new(),
            other => format!(", {other}"),
        };
        let build = build.map_or_else(String::new, |build| format!(" ({build})"));
        write!(
            f,
            "{path} {endpoint} c={}{keep_alive}{placement}{build}",
            self.load()
        )
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conservation => "bytes unaccounted for",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::NoAnswer => "no answer",
            Self::Start => "did not start",
            Self::TimeOut => "time-out",
            Self::Unable => "not done",
            Self::Preparation => "preparation",
            Self::WrongAnswer => "wrong answer",
        })
    }
}
