//! A running path: its processes, its directory, and its addresses for requests and counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hopbench_analysis::record::{Failure, FailureKind, Source, Trial, UsageSecond, Warning};
use tempfile::TempDir;

use super::{
    Live, STOP_GRACE, TrialError,
    difference::{difference, unreadable},
    fill::TrialFill,
    front::{self, Front},
    harness_failure,
    last_words::{FOREGROUND, hint, last_words},
    rendered,
};
use crate::{
    catalog::{PathDefinition, ProcessDefinition},
    observe::{
        http::{Answer, Endpoint, Question, Server, TimedOut},
        status::Status,
        usage::{self, Snapshot},
    },
    plan::work::{PlannedRequest, Work},
    process::{
        Child, Command, Interrupt, Output, Strays, Watchman, describe_exit, stop_all,
        temporary_directory, wait,
    },
    run::{builds::Built, profile},
};

/// A started path. Dropping it kills what runs and removes the directory.
#[derive(Debug)]
pub(super) struct Stage {
    processes: Vec<Running>,
    /// Comes after the processes, and finds what they have left behind.
    strays: Strays,
    /// Ends all of them if hopbench is killed.
    watchman: Watchman,
    front: Front,
    /// Added to the query of every request.
    query: Option<String>,
    /// Sockets and files of the path. Comes last, so that it outlives the processes.
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    definition: ProcessDefinition,
    child: Child,
    admin: Option<Endpoint>,
    command: Command,
    log: PathBuf,
}

/// The outcome of stopping a path.
#[derive(Debug)]
pub(super) struct Stopped {
    /// Processes that had to be killed.
    killed: Vec<String>,
    /// Programs that they had started and that had left their group.
    strays: Vec<String>,
}

/// Counters by process and name.
pub(super) type Counters = BTreeMap<String, BTreeMap<String, u64>>;

impl Stage {
    /// Starts the path's processes and waits until the path as a whole answers.
    pub(super) fn start(
        live: &Live<'_>,
        definition: &PathDefinition,
        build: Option<&Built>,
        label: &str,
    ) -> Result<Self, TrialError> {
        let mut stage = Self::start_processes(live, definition, build, (label, None))
            .map_err(harness_failure)?;
        stage.wait_until_ready(live, definition)?;
        if !definition.counters.is_empty() {
            let counters = stage.counters(live)?;
            let missing = missing_counter(definition, &counters);
            if let Some(cause) = missing {
                return Err(TrialError::Failed(Failure {
                    source: Source::Subject,
                    kind: FailureKind::Start,
                    cause,
                    log: stage.last_lines(),
                }));
            }
        }
        Ok(stage)
    }

    /// Starts the path's processes, the last of them late if it says so. Waits for nothing.
    pub(super) fn start_processes(
        live: &Live<'_>,
        definition: &PathDefinition,
        build: Option<&Built>,
        (label, delay_ms): (&str, Option<u64>),
    ) -> anyhow::Result<Self> {
        // Directly below the temporary directory: a socket's path may only have 107 bytes.
        let directory = temporary_directory()?;
        let toolbox = build.map_or(live.toolbox, |build| &build.toolbox);
        let needs_certificates = definition.needs_certificates();
        let certificates = needs_certificates
            .then(|| live.certificates())
            .transpose()?;
        let fill = TrialFill::new(toolbox, directory.path());
        let mut fill = fill.with_certificates(certificates);
        fill.write(&definition.files)?;
        let front = Front::of(definition, &mut fill, certificates)?;
        let query = definition.query.as_ref();
        let query = query.map(|query| query.fill(&mut fill)).transpose()?;
        let mut stage = Self {
            processes: Vec::new(),
            strays: Strays::adopt(directory.path())?,
            watchman: Watchman::start(directory.path())?,
            front,
            query,
            directory,
        };
        for (index, process) in definition.processes.iter().enumerate() {
            let mut command = fill.process(process)?;
            if let Some(build) = build
                && process.takes_faults
            {
                command.arguments.extend(build.injected.iter().cloned());
            }
            if let Some(delay_ms) = delay_ms
                && index + 1 == definition.processes.len()
            {
                command = command.delayed(delay_ms)?;
            }
            let admin = process
                .admin
                .as_ref()
                .map(|admin| admin.fill(&mut fill))
                .transpose()?;
            let admin = admin
                .map(|admin| admin.parse().map_err(anyhow::Error::msg))
                .transpose()?;
            let log = live.logs.join(format!("{label}.{}.log", process.name));
            let child = Child::start(&process.name, &command, Output::Log(log.clone()))?;
            stage.watchman.watch(&child);
            stage.processes.push(Running {
                definition: process.clone(),
                child,
                admin,
                command,
                log,
            });
        }
        let started = stage.processes.iter();
        let commands = started.map(|it| (it.definition.name.as_str(), &it.command));
        rendered::keep(&live.logs, definition, stage.directory.path(), commands)?;
        Ok(stage)
    }

    /// Kills the last process, which the others were there before, and starts it again.
    pub(super) fn restart_hop(&mut self) -> Result<(), TrialError> {
        let Some(running) = self.processes.last_mut() else {
            return Ok(());
        };
        running.child.kill();
        let output = Output::Log(running.log.with_extension("again.log"));
        let child = Child::start(&running.definition.name, &running.command, output);
        running.child = child.map_err(harness_failure)?;
        self.watchman.watch(&running.child);
        Ok(())
    }

    /// Waits until the front answers, and every process serves its counters where the path says.
    fn wait_until_ready(
        &mut self,
        live: &Live<'_>,
        definition: &PathDefinition,
    ) -> Result<(), TrialError> {
        let deadline = Instant::now() + definition.start_timeout;
        let front = self.front.server.clone();
        let is_ready = |answer: &Answer| front::is_ready(front.protocol(), answer);
        let target = &definition.ready;
        let within = definition.start_timeout.as_secs_f64();
        let what = format!("'{front}' did not answer '{target}' within {within} s");
        let target = &self.target(target);
        self.wait_for(live, &front, target, deadline, is_ready, &what)?;
        let has_counters = |answer: &Answer| Status::read(answer).map(drop);
        for (name, admin) in self.admins() {
            let what = format!(
                "'{name}' did not serve its counters within {within} s at '{admin}' (its 'admin')"
            );
            self.wait_for(
                live,
                &admin.into(),
                Status::TARGET,
                deadline,
                has_counters,
                &what,
            )?;
        }
        Ok(())
    }

    /// Asks until the answer is good. `what` says what is wrong if it never is.
    fn wait_for(
        &mut self,
        live: &Live<'_>,
        server: &Server,
        target: &str,
        deadline: Instant,
        is_ready: impl Fn(&Answer) -> Result<(), String>,
        what: &str,
    ) -> Result<(), TrialError> {
        let question = Question {
            method: "GET",
            target,
            headers: &[],
            body: Default::default(),
        };
        let mut trouble = None;
        let ready = live
            .client
            .wait_until_ready(server, &question, deadline, is_ready, || {
                trouble = self.trouble(live.interrupt);
                match trouble {
                    Some(_) => Err(anyhow::anyhow!("given up")),
                    None => Ok(()),
                }
            });
        match (ready, trouble) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(trouble)) => Err(trouble),
            (Err(error), None) => {
                let log = self.last_lines();
                let hint = hint(&error);
                let said = last_words(&log);
                let said = said.map_or_else(String::new, |said| format!("; printed last: {said}"));
                Err(TrialError::Failed(Failure {
                    source: Source::Subject,
                    kind: FailureKind::Start,
                    cause: format!("{what}: {error:#}{hint}{said}"),
                    log,
                }))
            }
        }
    }

    /// Sends each kind of request once, to its first target, and compares the answers with the
    /// expected ones.
    pub(super) fn verify(&mut self, live: &Live<'_>, work: &Work) -> Result<(), TrialError> {
        work.requests
            .iter()
            .try_for_each(|request| self.verify_request(live, request))
    }

    /// Sends a request to its first target, once.
    pub(super) fn ask(&self, live: &Live<'_>, request: &PlannedRequest) -> anyhow::Result<Answer> {
        let question = Question {
            method: &request.method,
            target: &self.target(&request.targets[0]),
            headers: &as_under_load(&request.headers),
            body: request.body.clone().unwrap_or_default(),
        };
        live.client
            .ask(&self.front.server, &question, live.answer_timeout())
    }

    fn verify_request(
        &mut self,
        live: &Live<'_>,
        request: &PlannedRequest,
    ) -> Result<(), TrialError> {
        let expected = &request.expect[0];
        let subject = Source::Subject;
        let (source, kind, cause) = match self.ask(live, request) {
            Ok(answer) => match (difference(&answer, expected), unreadable(&answer)) {
                (None, None) => return Ok(()),
                (Some(difference), _) => (subject, FailureKind::WrongAnswer, difference),
                (None, Some(cause)) => (Source::LoadGenerator, FailureKind::Unable, cause),
            },
            Err(error) if error.is::<TimedOut>() => {
                (subject, FailureKind::Hang, format!("{error:#}"))
            }
            Err(error) => {
                self.wait_for_an_end(live.interrupt)
                    .map_err(harness_failure)?;
                let cause = format!("no answer: {error:#}");
                (subject, FailureKind::NoAnswer, cause)
            }
        };
        if let Some(trouble) = self.trouble(live.interrupt) {
            return Err(trouble);
        }
        let cause = match request.name.starts_with('/') {
            true => format!("{} {}: {cause}", request.method, request.name),
            false => format!(
                "request '{}': {} {}: {cause}",
                request.name,
                request.method,
                self.target(&request.targets[0])
            ),
        };
        let log = self.last_lines();
        Err(TrialError::Failed(Failure {
            source,
            kind,
            cause,
            log,
        }))
    }

    /// Waits for a moment until a process ends: one that no longer listens may be about to.
    fn wait_for_an_end(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let children: Vec<&Child> = self.children().collect();
        wait(&children, Instant::now() + END_PATIENCE, Some(interrupt)).map(drop)
    }

    /// Returns the processes that have counters, and where each serves them.
    fn admins(&self) -> Vec<(String, Endpoint)> {
        let admin = |running: &Running| {
            let admin = running.admin.clone()?;
            Some((running.definition.name.clone(), admin))
        };
        self.processes.iter().filter_map(admin).collect()
    }

    /// Reads the counters of all processes that have some.
    pub(super) fn counters(&mut self, live: &Live<'_>) -> Result<Counters, TrialError> {
        let mut all = Counters::new();
        for (name, admin) in self.admins() {
            let status = Status::ask(&live.client, &admin, live.answer_timeout());
            match status {
                Ok(Status { counters }) => drop(all.insert(name, counters)),
                Err(error) => {
                    let cause =
                        format!("could not read the counters of '{name}' at '{admin}': {error:#}");
                    // They could be read when the path started.
                    let (source, kind) = (Source::Subject, FailureKind::Hang);
                    let failure = Failure {
                        source,
                        kind,
                        cause,
                        log: self.last_lines(),
                    };
                    let trouble = self.trouble(live.interrupt);
                    return Err(trouble.unwrap_or(TrialError::Failed(failure)));
                }
            }
        }
        Ok(all)
    }

    /// Returns how much each counter has grown. A value that has shrunk is a gauge, and is kept as
    /// it is.
    pub(super) fn counters_since(
        &mut self,
        before: &Counters,
        live: &Live<'_>,
    ) -> Result<Counters, TrialError> {
        let mut counters = self.counters(live)?;
        for (process, counters) in &mut counters {
            for (name, value) in counters {
                let earlier = before
                    .get(process)
                    .and_then(|before| before.get(name))
                    .copied();
                *value = value
                    .checked_sub(earlier.unwrap_or_default())
                    .unwrap_or(*value);
            }
        }
        Ok(counters)
    }

    /// Reads the usage of every process so far, in the order of the processes.
    pub(super) fn usage(&mut self) -> Result<Vec<Snapshot>, TrialError> {
        let snapshots = self
            .processes
            .iter()
            .map(|running| Snapshot::take(running.child.pid(), &running.definition));
        let snapshots: anyhow::Result<Vec<Snapshot>> = snapshots.collect();
        snapshots.map_err(harness_failure)
    }

    /// Returns the usage so far of each process that has got workers since `before`; `None` for one
    /// that has none, or that has ended, which is noticed elsewhere.
    pub(super) fn usage_with_new_workers(&self, before: &[Snapshot]) -> Vec<Option<Snapshot>> {
        let processes = self.processes.iter().zip(before);
        let processes = processes.map(|(running, before)| {
            let now = Snapshot::take(running.child.pid(), &running.definition).ok()?;
            now.has_new_workers(before).then_some(now)
        });
        processes.collect()
    }

    /// Adds the usage of every process between two snapshots to the record.
    pub(super) fn add_usage(&self, before: &[Snapshot], after: &[Snapshot], trial: &mut Trial) {
        for ((running, before), after) in self.processes.iter().zip(before).zip(after) {
            let (usage, by_role) = after.since(before, &running.definition);
            trial.processes.push(usage);
            for (role, cpu_us) in by_role {
                *trial.cpu_us.entry(role).or_default() += cpu_us;
            }
            for (role, wait_us) in after.run_queue_wait_us_since(before) {
                *trial.run_queue_wait_us.entry(role).or_default() += wait_us;
            }
        }
    }

    /// Returns the usage of all processes between two snapshots, without its duration.
    pub(super) fn usage_second(&self, before: &[Snapshot], after: &[Snapshot]) -> UsageSecond {
        let mut second = UsageSecond::default();
        let mut descriptors = Some(0);
        for ((running, before), after) in self.processes.iter().zip(before).zip(after) {
            let (_, by_role) = after.since(before, &running.definition);
            second.rss_kib += after.all_rss_kib();
            for (role, cpu_us) in by_role {
                *second.cpu_us.entry(role).or_default() += cpu_us;
            }
            descriptors = descriptors
                .zip(after.descriptors())
                .map(|(sum, of)| sum + of);
        }
        UsageSecond {
            descriptors,
            ..second
        }
    }

    /// Returns the failure of the process that has ended.
    pub(super) fn crash(&mut self, when: &str) -> TrialError {
        let log = self.last_lines();
        let ended = self.processes.iter_mut().find_map(|running| {
            let status = running.child.exit_status().ok().flatten()?;
            let said = last_words(&running.child.own_last_lines());
            let hint = match status.success() {
                true => FOREGROUND,
                false => "",
            };
            Some(format!(
                "'{}' {} {when}{}{hint}",
                running.child.name(),
                describe_exit(status),
                said.map_or_else(String::new, |said| format!(": {said}"))
            ))
        });
        TrialError::Failed(Failure {
            source: Source::Subject,
            kind: FailureKind::Crash,
            cause: ended.unwrap_or_else(|| format!("a process ended {when}")),
            log,
        })
    }

    /// Returns what is wrong: a process that has ended, or a request to stop.
    pub(super) fn trouble(&mut self, interrupt: &Interrupt) -> Option<TrialError> {
        if interrupt.is_requested() {
            return Some(TrialError::Interrupted);
        }
        let ended = self
            .processes
            .iter_mut()
            .any(|running| matches!(running.child.exit_status(), Ok(Some(_)) | Err(_)));
        ended.then(|| self.crash("without being asked to stop"))
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.processes.iter().map(|running| &running.child)
    }

    /// Returns the path's processes, with all that they have started, for a profile.
    pub(super) fn targets(&self) -> Vec<profile::ProfileTarget> {
        let processes = self.processes.iter();
        processes
            .map(|running| profile::ProfileTarget {
                name: running.definition.name.clone(),
                pids: usage::group(running.child.pid()),
                role: running.definition.role.clone(),
                thread_roles: running.definition.thread_roles.clone(),
            })
            .collect()
    }

    /// Returns a target as it is asked for at the front.
    pub(super) fn target(&self, target: &str) -> String {
        match &self.query {
            None => target.to_owned(),
            Some(query) if target.contains('?') => format!("{target}&{query}"),
            Some(query) => format!("{target}?{query}"),
        }
    }

    pub(super) fn front(&self) -> &Front {
        &self.front
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the last lines that the processes have logged.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.children().flat_map(Child::last_lines).collect()
    }

    fn groups(&self) -> Vec<u32> {
        self.children().map(Child::pid).collect()
    }

    /// Returns the processes that have left their group and ended, by process ID.
    pub(super) fn ended_strays(&self) -> BTreeMap<u32, String> {
        self.strays.ended(&self.groups())
    }

    /// Warns of those that have done so since, each name once.
    pub(super) fn warn_of_strays_since(&self, before: &BTreeMap<u32, String>) -> Vec<Warning> {
        let now = self.ended_strays().into_iter();
        let since = now.filter(|(pid, _)| !before.contains_key(pid));
        let names: BTreeSet<String> = since.map(|(_, name)| name).collect();
        let names = names.into_iter();
        names.map(|process| Warning::Strayed { process }).collect()
    }

    /// Stops all processes.
    pub(super) fn stop(self) -> Stopped {
        let groups = self.groups();
        let processes = self.processes.into_iter();
        let children = processes.map(|running| running.child).collect();
        Stopped {
            killed: stop_all(children, STOP_GRACE),
            strays: self.strays.end(&groups),
        }
    }
}

impl Stopped {
    pub(super) fn into_warnings(self) -> impl Iterator<Item = Warning> {
        let killed = self.killed.into_iter();
        let strays = self.strays.into_iter();
        killed
            .map(|process| Warning::Unstoppable { process })
            .chain(strays.map(|process| Warning::Strayed { process }))
    }
}

/// Time in which a process that no longer listens may end, to be named as the cause. Some wait for
/// half a second before they close their last connection.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Fields that the load generator sends by itself, besides its name and `Host`. Whoever verifies
/// must send them, too: a hop may compress what a client accepts compressed.
const LOAD_HEADERS: [(&str, &str); 2] = [
    ("accept", "*/*"),
    ("accept-encoding", "gzip, compress, deflate, br"),
];

/// Returns the fields of a request with those that the load generator adds.
fn as_under_load(own: &[(String, String)]) -> Vec<(String, String)> {
    let has = |name: &str| own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let generator = (
        "user-agent",
        concat!("hopbench/", env!("CARGO_PKG_VERSION")),
    );
    let added = LOAD_HEADERS.into_iter().chain([generator]);
    let added = added.filter(|(name, _)| !has(name));
    let added = added.map(|(name, value)| (name.to_owned(), value.to_owned()));
    added.chain(own.iter().cloned()).collect()
}

/// Returns what is wrong if a counter that the path declares is served by none of its processes.
fn missing_counter(path: &PathDefinition, served: &Counters) -> Option<String> {
    let serves = |role: Option<&String>, name: &str| {
        let mut processes = path.processes.iter().filter(|process| {
            let counters = served.get(&process.name);
            let has_role = role.is_none_or(|role| process.role == *role);
            has_role && counters.is_some_and(|counters| counters.contains_key(name))
        });
        processes.next().is_some()
    };
    let shown = path.counters.shown.iter().map(|it| (None, &it.name));
    let rules = path.counters.rules.iter();
    let ruled = rules.flat_map(|rule| rule.counters.iter().map(|name| (rule.role.as_ref(), name)));
    let (role, name) = shown
        .chain(ruled)
        .find(|(role, name)| !serves(*role, name))?;
    let role = role.map_or_else(String::new, |role| format!(" of role '{role}'"));
    Some(format!(
        "the path file declares the counter '{name}', but no process{role} serves it at 'admin'"
    ))
}
