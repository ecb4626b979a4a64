//! Compares the machine's hardware with a stored profile.

use std::path::Path;

use anyhow::Context as _;

use super::{Finding, State};
use crate::{
    catalog::read_text_within,
    cmd::{REFERENCE, check_place, cli},
    mistake::Mistake,
    observe::{hardware::HardwareProfile, machine},
    run::run_dir::{RunDir, is_absent, write_whole},
};

/// Saves the profile, or compares it.
pub(super) fn findings(options: &cli::Doctor) -> anyhow::Result<Vec<Finding>> {
    let here = HardwareProfile::from(&machine::describe(Path::new(".")));
    if let Some(file) = &options.save_profile {
        save(&here, file)?;
        let note = format!("written to '{}'", file.display());
        return Ok(vec![finding(State::Fine, note)]);
    }
    if let Some(place) = &options.profile {
        return Ok(compare(&here, &read(place)?, place));
    }
    let reference = Path::new(REFERENCE);
    if !reference.is_dir() {
        let note = "not compared: make a profile with --save-profile, and name it with --profile";
        return Ok(vec![finding(State::Fine, note.to_owned())]);
    }
    // Nobody named these runs, so that they can't be a mistake.
    let compared = RunDir::latest(reference).and_then(|run| {
        let stored = HardwareProfile::from(&run.manifest()?.machine);
        Ok(compare(&here, &stored, run.path()))
    });
    Ok(compared.unwrap_or_else(|error| {
        let note = format!("not compared: {error:#}");
        vec![finding(State::Warning, note)]
    }))
}

fn finding(state: State, note: String) -> Finding {
    Finding {
        what: "hardware profile".to_owned(),
        state,
        note,
    }
}

fn save(profile: &HardwareProfile, file: &Path) -> anyhow::Result<()> {
    check_place(file)?;
    let text = serde_json::to_string_pretty(profile)? + "\n";
    write_whole(file, text.as_bytes())
}

/// Largest profile: it has some lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a profile, or takes that of the machine which a run was made on.
fn read(place: &Path) -> anyhow::Result<HardwareProfile> {
    if place.is_dir() {
        return Ok(HardwareProfile::from(
            &RunDir::open(place)?.manifest()?.machine,
        ));
    }
    let name = place.display();
    let text = match read_text_within(place, FILE_BYTES_MAX) {
        Err(error) if is_absent(&error) => {
            let message = format!(
                "there is no hardware profile '{name}'; write one with \
                 'hopbench doctor --save-profile {name}'"
            );
            return Err(Mistake(message).into());
        }
        other => other.with_context(|| format!("could not read '{name}'"))?,
    };
    let profile = serde_json::from_str(&text).map_err(|error| {
        Mistake(format!(
            "'{name}' is not a hardware profile: {error}; expected a file that \
             'hopbench doctor --save-profile' wrote, or the directory of a run"
        ))
    });
    Ok(profile?)
}

/// Returns a finding for each difference.
fn compare(here: &HardwareProfile, stored: &HardwareProfile, place: &Path) -> Vec<Finding> {
    let place = place.display();
    let differences = here.differences_from(stored);
    if differences.is_empty() {
        return vec![finding(State::Fine, format!("as in '{place}'"))];
    }
    let findings = differences.into_iter().map(|it| {
        let note = format!(
            "{}: '{}' here, '{}' in '{place}'",
            it.property, it.here, it.stored
        );
        finding(State::Warning, note)
    });
    findings.collect()
}
