//! Two files of one path, in place of two builds.

use crate::{
    catalog::{Catalog, PathDefinition},
    cmd::{Context, run as runs},
    mistake::Mistake,
    plan::selection::{Overrides, SelectedPath, Selection},
    process::Interrupt,
    run::builds::{Builds, Version},
};

/// Returns whether what stands for a build is the file of a path.
pub(super) fn is_path_file(asked: &str) -> bool {
    asked.ends_with(".toml")
}

/// Selects the paths of both files as one path, of which they are the builds.
pub(super) fn select(
    context: &Context,
    scenarios: &[String],
    overrides: &Overrides,
    files: [&str; 2],
    interrupt: &Interrupt,
) -> anyhow::Result<(Selection, Builds)> {
    check(overrides, files)?;
    let [a, b] = [path(context, files[0])?, path(context, files[1])?];
    check_fronts(scenarios, files, [&a, &b])?;
    let (name, names) = match a.name == b.name {
        true => (
            a.name.clone(),
            ["a", "b"].map(|it| format!("{}-{it}", a.name)),
        ),
        false => (
            format!("{}..{}", a.name, b.name),
            [a.name.clone(), b.name.clone()],
        ),
    };
    let mut catalog = Catalog::built_in()?;
    for (path, name) in [a, b].iter().zip(&names) {
        catalog = catalog.with(path.with(name, &path.parameters).map_err(Mistake)?)?;
    }
    let context = Context {
        catalog,
        toolbox: context.toolbox.clone(),
        format: context.format,
    };
    let of_files = Overrides {
        paths: names.to_vec(),
        ..overrides.clone()
    };
    let mut selection = runs::select(&context, scenarios, &of_files, interrupt)?;
    // A repeat names the files again.
    selection.request.paths.clear();
    let [a, b] = join(&mut selection, &name, &names);
    let version = |asked: &str, definition| Version {
        asked: asked.to_owned(),
        definition,
        stands_for: name.clone(),
    };
    let versions = [version(files[0], a), version(files[1], b)];
    Ok((selection, Builds::of_versions(&context.toolbox, versions)))
}

fn check(overrides: &Overrides, files: [&str; 2]) -> Result<(), Mistake> {
    let stranger = files.iter().find(|file| !is_path_file(file));
    let message = match stranger {
        Some(stranger) => format!(
            "'{stranger}': expected the file of a path, as the other of '--a' and '--b' is, or \
             two builds"
        ),
        None if !overrides.paths.is_empty() => {
            "'--path': leave it out; the paths are the files of '--a' and '--b'".to_owned()
        }
        None if !overrides.parameters.sweep.is_empty() => {
            "'--sweep': expected '--set' for the files of '--a' and '--b'".to_owned()
        }
        None => return Ok(()),
    };
    Err(Mistake(message))
}

/// Checks that clients ask both paths alike. Otherwise a verdict would be about the clients, too.
fn check_fronts(
    scenarios: &[String],
    files: [&str; 2],
    paths: [&PathDefinition; 2],
) -> Result<(), Mistake> {
    let [a, b] = paths.map(|path| path.front.protocol);
    if a == b {
        return Ok(());
    }
    let [of_a, of_b] = files;
    let scenario = scenarios.first().map_or("SCENARIO", String::as_str);
    Err(Mistake(format!(
        "'{of_a}' is asked by {a} and '{of_b}' by {b}: expected the same 'front' and 'protocol', \
         since their clients' costs differ; to measure them side by side, 'hopbench run {scenario} \
         --path {of_a},{of_b}'"
    )))
}

fn path(context: &Context, file: &str) -> anyhow::Result<PathDefinition> {
    let mut paths = context.catalog.paths(file)?;
    Ok(paths.swap_remove(0))
}

/// Puts one path in the place of two; returns the two.
fn join(selection: &mut Selection, name: &str, names: &[String; 2]) -> [PathDefinition; 2] {
    let is_one = |path: &SelectedPath| names.contains(&path.definition.name);
    let (ones, others) = std::mem::take(&mut selection.paths)
        .into_iter()
        .partition(is_one);
    selection.paths = others;
    let find = |name: &String| {
        let ones: &Vec<SelectedPath> = &ones;
        let one = ones.iter().find(|path| path.definition.name == *name);
        one.expect("every scenario has both").definition.clone()
    };
    let [a, b] = names.each_ref().map(find);
    let mut joint = a.clone();
    name.clone_into(&mut joint.name);
    joint.summary = format!("'{}' as build a, '{}' as build b.", a.name, b.name);
    joint.analysis.clear();
    joint.text.clear();
    joint.parameters.clear();
    let is_new = |name: &str| !a.counters.shown.iter().any(|known| known.name == name);
    let counters = b.counters.shown.iter().filter(|it| is_new(&it.name));
    joint.counters.shown.extend(counters.cloned());
    selection.paths.push(SelectedPath {
        definition: joint,
        skipped: None,
    });
    for scenario in &mut selection.scenarios {
        scenario.paths.retain(|path| !names.contains(path));
        scenario.paths.push(name.to_owned());
    }
    [a, b]
}
