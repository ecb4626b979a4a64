//! A scenario's load as a project for another load engine, which runs on several machines.
//!
//! A project has one load: what another engine reports of several can't be told apart.

mod k6;
mod load;
mod locust;
mod target;
mod template;

use hopbench_analysis::gate::Policy;

pub(crate) use self::{load::Load, target::EngineTarget};

/// A file of a project: its name, and its text.
pub(crate) type ProjectFile = (&'static str, String);

/// Returns a project for Locust.
pub(crate) fn locust(load: &Load, target: &EngineTarget) -> anyhow::Result<Vec<ProjectFile>> {
    locust::project(load, target)
}

/// Returns a project for k6, with the thresholds of a policy.
pub(crate) fn k6(
    load: &Load,
    target: &EngineTarget,
    policy: &Policy,
) -> anyhow::Result<Vec<ProjectFile>> {
    k6::project(load, target, policy)
}
