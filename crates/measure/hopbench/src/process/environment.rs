//! The environment of children, which is stated here and recorded with each run.
//!
//! Nothing else of the user's shell reaches what is measured: `TOKIO_WORKER_THREADS`, `LD_PRELOAD`
//! or `http_proxy` would steer it, and `GIT_DIR`, as in a hook of git, would name another
//! repository. A child that needs more gets it by name ([`Command::environment`]).
//!
//! [`Command::environment`]: super::Command::environment

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io,
    path::{self, PathBuf},
};

use rustix::{fs::Mode, process::umask};
use tempfile::TempDir;

/// Variables that children get as hopbench has them: where programs, their files and their user's
/// configuration are.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "HOME",
    "LOGNAME",
    "PATH",
    "RUSTUP_HOME",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// Language of what children print: English messages, and numbers with a point.
const LANGUAGE: (&str, &str) = ("LANG", "C.UTF-8");

/// Variables with which cargo reaches registries. None of them changes what it builds.
const OF_CARGO: [&str; 12] = [
    "ALL_PROXY",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_OFFLINE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Permissions that files of children don't have: only their owner may write them.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// While it lives, files get the permissions that children's files have. Files that hopbench writes
/// for its user have those that the user wants.
#[derive(Debug)]
pub(crate) struct StatedUmask(Mode);

impl StatedUmask {
    pub(crate) fn set() -> Self {
        Self(umask(UMASK))
    }
}

impl Drop for StatedUmask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// Decides where temporary files are, before any is made. Children work in another directory than
/// hopbench, so the name must be absolute. A `TMPDIR` without a value counts as none.
pub(crate) fn settle_temporary_directory() {
    let asked = env::temp_dir();
    let place = match asked.as_os_str().is_empty() {
        true => PathBuf::from("/tmp"),
        // Without a working directory, its use fails and says so.
        false => path::absolute(&asked).unwrap_or(asked),
    };
    // Fails only if it is settled already.
    let _ = tempfile::env::override_temp_dir(&place);
}

/// Makes a directory for a trial, below the temporary directory.
pub(crate) fn temporary_directory() -> io::Result<TempDir> {
    let _umask = StatedUmask::set();
    tempfile::Builder::new().prefix("hopbench-").tempdir()
}

/// Returns the variables that every child gets.
pub(super) fn variables() -> Vec<(OsString, OsString)> {
    let mut variables = kept(&KEPT);
    let temporary = tempfile::env::temp_dir().into_os_string();
    variables.push((LANGUAGE.0.into(), LANGUAGE.1.into()));
    variables.push(("TMPDIR".into(), temporary));
    variables
}

/// Returns the variables that cargo gets besides.
pub(crate) fn of_cargo() -> Vec<(OsString, OsString)> {
    kept(&OF_CARGO)
}

fn kept(names: &[&str]) -> Vec<(OsString, OsString)> {
    let value = |name: &&str| Some((OsString::from(name), env::var_os(name)?));
    names.iter().filter_map(value).collect()
}

/// Describes the environment of every child, for the record.
pub(crate) fn describe() -> (BTreeMap<String, String>, String) {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let variables = variables().into_iter();
    let variables = variables.map(|(name, value)| (text(name), text(value)));
    (variables.collect(), format!("{:04o}", UMASK.bits()))
}
