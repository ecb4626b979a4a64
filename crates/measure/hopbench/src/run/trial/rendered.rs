//! Keeps what a path's processes were given: their files and their command lines, with all places
//! filled in.

use std::{fs, io, path::Path};

use crate::{catalog::PathDefinition, process::Command};

/// Keeps the files of a path's first trial in `PATH.files` below `logs`, and its command lines in
/// `PATH.commands`. Those of later trials differ in ports and directories only.
pub(super) fn keep<'a>(
    logs: &Path,
    definition: &PathDefinition,
    directory: &Path,
    commands: impl Iterator<Item = (&'a str, &'a Command)>,
) -> io::Result<()> {
    let kept = logs.join(format!("{}.commands", definition.name));
    if kept.exists() {
        return Ok(());
    }
    let lines = commands.map(|(process, command)| {
        let program = command.program.to_string_lossy();
        let arguments = command.arguments.iter().map(String::as_str);
        format!(
            "{process}: {}\n",
            quoted([&*program].into_iter().chain(arguments))
        )
    });
    fs::write(kept, lines.collect::<String>())?;
    if definition.files.is_empty() {
        return Ok(());
    }
    let kept = logs.join(format!("{}.files", definition.name));
    fs::create_dir_all(&kept)?;
    for file in &definition.files {
        fs::copy(directory.join(&file.name), kept.join(&file.name))?;
    }
    Ok(())
}

/// Writes words as a shell reads them.
fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words = words.map(|word| {
        // A word with a zero byte could not have been given to a program.
        shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
    });
    words.collect::<Vec<_>>().join(" ")
}
