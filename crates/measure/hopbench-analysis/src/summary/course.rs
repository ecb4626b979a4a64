//! How loads went from their beginning to their end.

use crate::record::{Load, Trial};

/// How a cell's loads went from their beginning to their end.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Correct answers in the last quarter of the load, as a share of those in the first, for each
    /// trial that has counted them.
    pub slowdowns: Vec<f64>,
    /// Growth of resident memory, summed over the path's processes, in KiB, with the number of
    /// correct answers, for each trial.
    pub growth: Vec<(f64, u64)>,
    /// Growth of open descriptors, summed over the path's processes, with the number of correct
    /// answers, for each trial that has counted them.
    pub descriptors: Vec<(f64, u64)>,
    /// CPU time of each of the path's processes, in microseconds, with its name and the number of
    /// correct answers, for each trial.
    pub cpu_us: Vec<(String, f64, u64)>,
    /// How often a listen queue was full, for each trial that has counted it, failed ones included.
    pub listen_overflows: Vec<u64>,
}

impl Course {
    pub(super) fn of<'t>(
        trials: &[&Trial],
        loads: impl Iterator<Item = (&'t Trial, &'t Load)>,
    ) -> Self {
        let overflows = trials.iter().map(|it| it.disturbance.listen_overflows);
        let mut course = Self {
            listen_overflows: overflows.flatten().collect(),
            ..Self::default()
        };
        for (trial, load) in loads {
            course.slowdowns.extend(load.slowdown());
            course.growth.extend(growth(trial, load));
            course.descriptors.extend(descriptors(trial, load));
            let processes = trial.watched().unwrap_or_default().iter();
            let cpu_us = processes.map(|it| (it.name.clone(), it.cpu_us, load.good));
            course.cpu_us.extend(cpu_us);
        }
        course
    }
}

/// Returns how much memory a path has taken during a load, in KiB, for how many correct answers.
fn growth(trial: &Trial, load: &Load) -> Option<(f64, u64)> {
    let processes = trial.watched()?.iter();
    let grown = processes.map(|it| it.rss_after_kib as f64 - it.rss_before_kib as f64);
    Some((grown.sum(), load.good))
}

/// Returns how many descriptors a path has opened and not closed, for how many correct answers.
fn descriptors(trial: &Trial, load: &Load) -> Option<(f64, u64)> {
    let processes = trial.watched()?.iter();
    let grown = processes.map(|it| {
        let (before, after) = (it.descriptors_before?, it.descriptors_after?);
        Some(after as f64 - before as f64)
    });
    Some((grown.sum::<Option<f64>>()?, load.good))
}
