//! A load that is profiled, not measured.

use std::time::Duration;

use hopbench_analysis::record::{Load, PlannedTrial, Profile};

use super::{
    Live, Stage, TrialError, harness_failure, judge,
    load::{Bodies, Order},
};
use crate::{
    process::Interrupted,
    run::profile::{Perf, Roles, Strace, frequency_hz},
};

/// Maximum duration of the load that is sampled: more samples say no more.
const SAMPLED_MAX: Duration = Duration::from_secs(10);

/// Maximum duration of the load that is traced: counting makes a path slower, and counts are the
/// same after a while.
const TRACED_MAX: Duration = Duration::from_secs(2);

impl Live<'_> {
    /// Starts a path, loads it twice, and profiles it. Whatever can't be found out becomes a note,
    /// and so does a failure of the path.
    pub(crate) fn profile(&mut self, planned: &PlannedTrial) -> Result<Profile, Interrupted> {
        let mut profile = Profile {
            cell: planned.cell.clone(),
            frequency_hz: 0,
            requests: 0,
            requests_traced: 0,
            roles: Roles::new(),
            notes: Vec::new(),
        };
        match self.look(planned, &mut profile) {
            Ok(()) => Ok(profile),
            Err(TrialError::Interrupted) => Err(Interrupted),
            Err(TrialError::Failed(failure)) => {
                profile
                    .notes
                    .push(format!("{}: {}", failure.kind, failure.cause));
                Ok(profile)
            }
        }
    }

    fn look(&mut self, planned: &PlannedTrial, profile: &mut Profile) -> Result<(), TrialError> {
        let definition = self.paths[&planned.cell.path].clone();
        let work = self.work_of(&planned.cell).on(&definition);
        let order = self.order(planned, &work);
        let label = format!("profile-{}", planned.cell.path);
        let mut stage = Stage::start(self, &definition, None, &label)?;
        stage.verify(self, &work)?;
        let load = |stage: &mut Stage, duration| {
            let load = self.load(order.brief(duration, Bodies::Unchecked), stage)?;
            judge(&load, order.timeout)?;
            Ok::<Load, TrialError>(load)
        };
        if planned.warm_up_ms > 0 {
            load(&mut stage, Duration::from_millis(planned.warm_up_ms))?;
        }
        self.sample(order, profile, &mut stage)?;
        self.trace(order, profile, &mut stage)?;
        stage.stop();
        Ok(())
    }

    fn sample(
        &self,
        order: Order<'_>,
        profile: &mut Profile,
        stage: &mut Stage,
    ) -> Result<(), TrialError> {
        let duration = order.duration.min(SAMPLED_MAX);
        let Some(program) = self.toolbox.program("perf") else {
            let note = "'perf' is not installed, so there are no samples; try 'apt-get install \
                        linux-perf', or your system's package for it";
            profile.notes.push(note.to_owned());
            return Ok(());
        };
        let targets = stage.targets();
        // The recording is large, and its evaluation is kept, so it is removed with its directory.
        let directory =
            tempfile::tempdir_in(&self.logs).map_err(|error| harness_failure(error.into()))?;
        let file = directory.path().join("perf.data");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let hz = frequency_hz(cores, duration.as_secs_f64());
        let perf = Perf::start(&program, &targets, duration.as_secs_f64(), hz, &file);
        let load = self.load(order.brief(duration, Bodies::Unchecked), stage)?;
        judge(&load, order.timeout)?;
        let recorded = perf.and_then(|perf| perf.finish(&targets, self.interrupt));
        match recorded {
            Ok(roles) => {
                profile.frequency_hz = hz;
                profile.requests = load.good;
                profile.roles = roles;
            }
            Err(error) if error.is::<Interrupted>() => return Err(TrialError::Interrupted),
            Err(error) => profile.notes.push(format!(
                "no samples: perf: {error:#}; if permission was denied, set \
                 'kernel.perf_event_paranoid' to 1 or less, or run as root"
            )),
        }
        Ok(())
    }

    fn trace(
        &self,
        order: Order<'_>,
        profile: &mut Profile,
        stage: &mut Stage,
    ) -> Result<(), TrialError> {
        let Some(program) = self.toolbox.program("strace") else {
            let note = "'strace' is not installed, so system calls are not counted; try 'apt-get \
                        install strace'";
            profile.notes.push(note.to_owned());
            return Ok(());
        };
        let targets = stage.targets();
        let label = format!("profile-{}", profile.cell.path);
        let counted = Strace::start(&program, &targets, &self.logs, &label);
        let duration = order.duration.min(TRACED_MAX);
        let load = self.load(order.brief(duration, Bodies::Unchecked), stage)?;
        judge(&load, order.timeout)?;
        match counted.and_then(Strace::finish) {
            Ok(roles) => {
                profile.requests_traced = load.good;
                for (role, calls) in roles {
                    profile.roles.entry(role).or_default().system_calls = calls;
                }
            }
            Err(error) => profile.notes.push(format!(
                "system calls are not counted: strace: {error:#}; if permission was denied, set \
                 'kernel.yama.ptrace_scope' to 0, or run as root"
            )),
        }
        Ok(())
    }
}
