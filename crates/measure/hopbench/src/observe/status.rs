//! The counters of a server, as it serves them.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::http::{Answer, Client, Endpoint, Question};

/// The part of a process's status that is used.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) counters: BTreeMap<String, u64>,
}

impl Status {
    /// Where a process serves its counters, as JSON.
    pub(crate) const TARGET: &str = "/_admin/status";

    pub(crate) fn read(answer: &Answer) -> Result<Self, String> {
        if answer.status != 200 {
            return Err(format!("the status was {}", answer.status));
        }
        serde_json::from_slice(&answer.beginning).map_err(|error| error.to_string())
    }

    /// Asks a process for its status.
    pub(crate) fn ask(
        client: &Client,
        admin: &Endpoint,
        at_most: Duration,
    ) -> anyhow::Result<Self> {
        let question = Question {
            method: "GET",
            target: Self::TARGET,
            headers: &[],
            body: Default::default(),
        };
        let answer = client.ask(&admin.clone().into(), &question, at_most)?;
        Self::read(&answer).map_err(anyhow::Error::msg)
    }
}
