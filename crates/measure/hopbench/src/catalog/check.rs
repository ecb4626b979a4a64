//! Checks of a scenario that its types can't express.

use std::fmt;

use hopbench_analysis::{
    estimate::BLOCKS_MAX,
    record::{Placement, Recovery},
};

use super::{
    limits::{
        CONCURRENCY_MAX, DURATION_MS_MAX, KNEE_PERCENT_MAX, RATE_RPS_MAX, REQUESTS_MAX, rate_min,
    },
    request,
    scenario::{Asks, Rates, ScenarioDefinition},
    stage::Stage,
};

impl ScenarioDefinition {
    /// Checks what the types can't express. Also called after the command line's overrides.
    pub(crate) fn check(&self) -> Result<(), String> {
        within("duration-ms", self.duration_ms, 1, DURATION_MS_MAX)?;
        within("warm-up-ms", self.warm_up_ms, 0, DURATION_MS_MAX)?;
        within("blocks", self.blocks.into(), 1, BLOCKS_MAX as u64)?;
        for concurrency in &self.concurrency {
            within(
                "concurrency",
                (*concurrency).into(),
                1,
                CONCURRENCY_MAX.into(),
            )?;
        }
        each_once("concurrency", &self.concurrency)?;
        each_once("placement", &self.placements)?;
        match &self.asks {
            Asks::AllEndpoints => {}
            Asks::Endpoints(targets) => each_once("endpoints", targets)?,
            Asks::Mix(requests) => request::check(requests, self.requests)?,
        }
        within("requests", self.requests.unwrap_or(1), 1, REQUESTS_MAX)?;
        within(
            "timeout-ms",
            self.timeout_ms.unwrap_or(1),
            1,
            DURATION_MS_MAX,
        )?;
        within("think-time-ms", self.think_time_ms, 0, DURATION_MS_MAX)?;
        self.check_stages()?;
        self.check_prepare()?;
        self.check_rates()?;
        self.check_placements()?;
        let empty = [
            ("rates", self.rates.is_empty()),
            ("paths", self.paths.is_empty()),
            ("concurrency", self.concurrency.is_empty()),
            ("placement", self.placements.is_empty()),
            (
                "endpoints",
                matches!(&self.asks, Asks::Endpoints(targets) if targets.is_empty()),
            ),
        ];
        match empty.into_iter().find(|(_, empty)| *empty) {
            Some((name, _)) => Err(format!("'{name}': expected at least one")),
            None => Ok(()),
        }
    }

    /// A knee is found where the kernel likes.
    fn check_placements(&self) -> Result<(), String> {
        let is_free = self.placements == [Placement::Free];
        match self.rates.depend_on_knee() && !is_free {
            true => Err(
                "'placement': expected 'free' alone with rates that are shares of a knee; use \
                 rates in requests per second"
                    .to_owned(),
            ),
            false => Ok(()),
        }
    }

    fn check_rates(&self) -> Result<(), String> {
        match &self.rates {
            Rates::ClosedLoop => {}
            Rates::Fixed(rates) => {
                for rate in rates {
                    within("rates", (*rate).into(), 1, RATE_RPS_MAX.into())?;
                    let least = rate_min(self.duration_ms);
                    if *rate < least {
                        return Err(format!(
                            "'rates': {rate} per second is less than one request in {} ms \
                             ('duration-ms'); expected {least} or more, or a longer load",
                            self.duration_ms
                        ));
                    }
                }
                each_once("rates", rates)?;
                self.check_count_at(rates)?;
            }
            Rates::OfKnee {
                percent,
                p99_ms_max,
            } => {
                if self.requests.is_some() {
                    return Err(
                        "'requests': expected 'duration-ms': how long so many requests take at a \
                         share of the knee is not known before"
                            .to_owned(),
                    );
                }
                let max = KNEE_PERCENT_MAX.into();
                for percent in percent {
                    within("rates-percent-of-knee", (*percent).into(), 1, max)?;
                }
                each_once("rates-percent-of-knee", percent)?;
                if !(0.001..=60_000.0).contains(p99_ms_max) {
                    return Err(format!(
                        "'knee-p99-ms': expected 0.001 to 60000, found {p99_ms_max}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns whether the load is an open loop.
    pub(crate) fn is_open_loop(&self) -> bool {
        let mut stages = self.stages.iter();
        self.rates != Rates::ClosedLoop || stages.any(|stage| stage.concurrency.is_none())
    }

    /// Returns the highest rate that a closed loop can have because its connections wait.
    pub(crate) fn rate_cap_rps(&self, concurrency: u32) -> Option<f64> {
        let think_s = self.think_time_ms as f64 / 1e3;
        (think_s > 0.0).then(|| f64::from(concurrency) / think_s)
    }

    /// Fails if a number of requests is not even due within the limit.
    fn check_count_at(&self, rates: &[u32]) -> Result<(), String> {
        let Some(requests) = self.requests else {
            return Ok(());
        };
        let due_ms = |rate: &&u32| requests.saturating_mul(1_000) / u64::from(**rate);
        match rates.iter().find(|rate| due_ms(rate) > self.duration_ms) {
            Some(rate) => Err(format!(
                "'requests': {requests} at {rate} per second take longer than {} ms ('limit-ms'); \
                 expected fewer, or a longer limit",
                self.duration_ms
            )),
            None => Ok(()),
        }
    }

    fn check_stages(&self) -> Result<(), String> {
        if self.think_time_ms > 0 && self.is_open_loop() {
            return Err(
                "'think-time-ms': expected a closed loop; at a rate, requests are due whether or \
                 not a connection waits"
                    .to_owned(),
            );
        }
        if self.stages.is_empty() {
            return match self.recovery {
                Some(_) => Err("[recovery]: expected a scenario with stages".to_owned()),
                None => Ok(()),
            };
        }
        if self.rates != Rates::ClosedLoop && !self.stages.iter().all(Stage::is_of_knee) {
            return Err("'rates': expected either these or [[stage]] tables".to_owned());
        }
        let duration_ms: u64 = self.stages.iter().map(|stage| stage.duration_ms).sum();
        if duration_ms != self.duration_ms {
            return Err(format!(
                "'duration-ms': the stages take {duration_ms} ms together; expected no \
                 other duration"
            ));
        }
        match &self.recovery {
            Some(recovery) => self.check_recovery(recovery),
            None => Ok(()),
        }
    }

    fn check_recovery(&self, recovery: &Recovery) -> Result<(), String> {
        let is_baseline = |stage: &Stage| stage.name.as_ref() == Some(&recovery.baseline);
        let Some(baseline) = self.stages.iter().position(is_baseline) else {
            return Err(format!(
                "[recovery]: 'baseline': expected the name of a stage, found '{}'",
                recovery.baseline
            ));
        };
        let after = &self.stages[baseline + 1..];
        let after_ms: u64 = after.iter().map(|stage| stage.duration_ms).sum();
        if after_ms < u64::from(recovery.seconds) * 1_000 {
            return Err(format!(
                "[recovery]: 'baseline': expected {} s or more after the stage '{}', found {} ms",
                recovery.seconds, recovery.baseline, after_ms
            ));
        }
        if !(recovery.p95_factor.is_finite() && recovery.p95_factor >= 1.0) {
            return Err(format!(
                "[recovery]: 'p95-factor': expected 1 or more, found {}",
                recovery.p95_factor
            ));
        }
        if !(1..=600).contains(&recovery.seconds) {
            return Err(format!(
                "[recovery]: 'seconds': expected 1 to 600, found {}",
                recovery.seconds
            ));
        }
        Ok(())
    }

    fn check_prepare(&self) -> Result<(), String> {
        for prepare in &self.prepare {
            let of = |message: String| format!("[[prepare]] '{}': {message}", prepare.name);
            if !(1..=REQUESTS_MAX).contains(&prepare.requests) {
                return Err(of(format!(
                    "'requests': expected 1 to {REQUESTS_MAX}, found {}",
                    prepare.requests
                )));
            }
            if !(1..=CONCURRENCY_MAX).contains(&prepare.concurrency) {
                return Err(of(format!(
                    "'concurrency': expected 1 to {CONCURRENCY_MAX}, found {}",
                    prepare.concurrency
                )));
            }
            let mut names = prepare.paths.iter();
            if let Some(name) = names.find(|name| !may_select(&self.paths, name)) {
                return Err(of(format!(
                    "'paths': expected names of the scenario's paths, found '{name}'"
                )));
            }
            for name in &prepare.of {
                let is_known = match &self.asks {
                    Asks::Mix(requests) => requests.iter().any(|it| it.name == *name),
                    Asks::AllEndpoints | Asks::Endpoints(_) => false,
                };
                if !is_known {
                    return Err(of(format!(
                        "'of': expected names of [[request]] tables, found '{name}'"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Returns whether some of the selectors may select a path. Whom a tag selects shows only later.
pub(crate) fn may_select(selectors: &[String], name: &str) -> bool {
    let mut selectors = selectors.iter();
    selectors.any(|it| it == name || it == "*" || it.starts_with("tag:"))
}

fn within(name: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("'{name}': expected {min} to {max}, found {value}")),
    }
}

/// Rejects repeated values: a block measures each cell once.
fn each_once<T: fmt::Display + PartialEq>(name: &str, values: &[T]) -> Result<(), String> {
    let twice = (1..values.len()).find(|index| values[..*index].contains(&values[*index]));
    match twice {
        Some(index) => Err(format!("'{name}': '{}' is repeated", values[index])),
        None => Ok(()),
    }
}
