//! Tells whether a ratio is less noisy if its two trials were run closer to each other.
//!
//! `cargo run -p hopbench-analysis --example adjacency RUN_DIRECTORY...` reads runs whose order was
//! random. It takes two kinds of ratios of requests per second, both formed within a block: the
//! reference's second trial over its first, and each path's trial over each of the reference's two.
//! The noise of a ratio is the distance of its logarithm from 0 for the former, and from the median
//! of its cell for the latter. Within each block a line is fitted to the noise over the distance by
//! least squares. The blocks' slopes are independent of one another, unlike the ratios of a block;
//! the estimate over blocks and its interval are those of the signed-rank test (see
//! `hopbench_analysis::estimate`).

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use hopbench_analysis::{
    estimate::Shift,
    record::{Cell, Manifest, Trial},
    repeats::counted,
    report::plural,
    statistics::median,
};

type Failed = Box<dyn Error>;

/// A ratio's noise, and how far apart its two trials were.
#[derive(Clone, Copy)]
struct Pair {
    /// Number of the block, counted over all runs.
    block: usize,
    noise: f64,
    /// Distance of the two trials in the order of the run; neighbours are 1 apart.
    trials_apart: f64,
    /// Whether the reference's other trial of this block was farther away.
    is_nearer: bool,
}

fn main() -> ExitCode {
    let directories: Vec<String> = std::env::args().skip(1).collect();
    if directories.is_empty() {
        eprintln!("usage: adjacency RUN_DIRECTORY...");
        return ExitCode::from(2);
    }
    let printed =
        report(&directories).and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn report(directories: &[String]) -> Result<String, Failed> {
    let (mut replicates, mut paths, mut blocks) = (Vec::new(), Vec::new(), 0);
    for directory in directories {
        let run = Path::new(directory);
        let read = |name: &str| {
            let file = run.join(name);
            fs::read_to_string(&file).map_err(|error| format!("'{}': {error}", file.display()))
        };
        let manifest: Manifest = serde_json::from_str(&read("manifest.json")?)?;
        let trials = read("trials.jsonl")?;
        let trials = trials.lines().map(Trial::read).collect::<Result<_, _>>()?;
        let trials = counted(trials);
        for scenario in &manifest.scenarios {
            let of_scenario = trials
                .iter()
                .filter(|it| it.planned.cell.scenario == scenario.name);
            let of_scenario: Vec<&Trial> = of_scenario.collect();
            pairs(
                &of_scenario,
                &scenario.reference,
                blocks,
                &mut replicates,
                &mut paths,
            );
            let most = of_scenario.iter().map(|it| it.planned.block as usize).max();
            blocks += most.unwrap_or_default();
        }
    }
    let mut out = format!(
        "{}, {}\n",
        plural(directories.len(), "run"),
        plural(blocks, "block")
    );
    out += &section("reference over its replicate", &replicates);
    out += &section("path over reference", &paths);
    out += &nearer(&paths);
    Ok(out)
}

/// Returns the cell without its path.
fn load(cell: &Cell) -> Cell {
    let path = String::new();
    Cell {
        path,
        ..cell.clone()
    }
}

/// Adds the pairs of a scenario; its blocks are counted from `first` on.
fn pairs(
    trials: &[&Trial],
    reference: &str,
    first: usize,
    replicates: &mut Vec<Pair>,
    paths: &mut Vec<Pair>,
) {
    let is_reference = |it: &Trial| it.planned.cell.path == reference;
    let mut references: BTreeMap<(u32, Cell), Vec<&Trial>> = BTreeMap::new();
    for trial in trials
        .iter()
        .filter(|it| is_reference(it) && it.rps().is_some())
    {
        let key = (trial.planned.block, load(&trial.planned.cell));
        references.entry(key).or_default().push(trial);
    }
    let apart =
        |one: &Trial, other: &Trial| f64::from(one.planned.trial.abs_diff(other.planned.trial));
    let ratio = |one: &Trial, other: &Trial| Some((one.rps()? / other.rps()?).ln());
    for ((block, _), found) in &references {
        if let [one, other] = found[..] {
            replicates.extend(ratio(one, other).map(|ratio| Pair {
                block: first + *block as usize,
                noise: ratio.abs(),
                trials_apart: apart(one, other),
                is_nearer: false,
            }));
        }
    }
    let mut cells: BTreeMap<&Cell, Vec<(Pair, f64)>> = BTreeMap::new();
    for trial in trials.iter().filter(|it| !is_reference(it)) {
        let (block, cell) = (trial.planned.block, &trial.planned.cell);
        let Some([one, other]) = references.get(&(block, load(cell))).map(|it| &it[..]) else {
            continue;
        };
        for (this, that) in [(one, other), (other, one)] {
            let Some(ratio) = ratio(trial, this) else {
                continue;
            };
            let pair = Pair {
                block: first + block as usize,
                noise: f64::NAN,
                trials_apart: apart(trial, this),
                is_nearer: apart(trial, this) < apart(trial, that),
            };
            cells.entry(cell).or_default().push((pair, ratio));
        }
    }
    for found in cells.into_values() {
        let ratios: Vec<f64> = found.iter().map(|(_, ratio)| *ratio).collect();
        let usual = median(&ratios).expect("one at least");
        paths.extend(found.into_iter().map(|(pair, ratio)| Pair {
            noise: (ratio - usual).abs(),
            ..pair
        }));
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / count
}

/// Returns the root mean square of the noise, in percent.
fn deviation(pairs: &[Pair]) -> f64 {
    100.0 * mean(pairs.iter().map(|pair| pair.noise.powi(2))).sqrt()
}

fn by_block(pairs: &[Pair]) -> BTreeMap<usize, Vec<Pair>> {
    let mut blocks: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
    for pair in pairs {
        blocks.entry(pair.block).or_default().push(*pair);
    }
    blocks
}

/// Returns the rise of the noise per trial of distance; `None` if all pairs are equally far apart.
fn slope(pairs: &[Pair]) -> Option<f64> {
    let (x, y) = (
        mean(pairs.iter().map(|it| it.trials_apart)),
        mean(pairs.iter().map(|it| it.noise)),
    );
    let products = pairs
        .iter()
        .map(|it| (it.trials_apart - x) * (it.noise - y));
    let squares = pairs.iter().map(|it| (it.trials_apart - x).powi(2));
    let slope = products.sum::<f64>() / squares.sum::<f64>();
    slope.is_finite().then_some(slope)
}

fn section(name: &str, pairs: &[Pair]) -> String {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|one, other| one.trials_apart.total_cmp(&other.trials_apart));
    let apart = mean(pairs.iter().map(|it| it.trials_apart));
    let mut out = format!(
        "\n{name}: {} ratios, {apart:.0} trials apart on average, standard deviation {:.1} %\n",
        pairs.len(),
        deviation(pairs),
    );
    for quarter in sorted.chunks(sorted.len().div_ceil(4).max(1)) {
        out += &format!(
            "  {:3} to {:3} trials apart: {:.1} %\n",
            quarter[0].trials_apart,
            quarter[quarter.len() - 1].trials_apart,
            deviation(quarter),
        );
    }
    let slopes = by_block(pairs);
    let slopes = slopes.values().filter_map(|block| slope(block));
    if let Some(rise) = Shift::of(slopes.map(|slope| slope * 100.0 * (apart - 1.0))) {
        out += &format!(
            "  neighbours would be less noisy by {:+.1} points of percent ({:+.1} to {:+.1}, \
             confidence {:.1} %, p {:.2}, {} blocks), of {:.1}\n",
            rise.by,
            rise.low,
            rise.high,
            100.0 * rise.confidence,
            rise.p,
            rise.blocks,
            100.0 * mean(pairs.iter().map(|it| it.noise)),
        );
    }
    out
}

/// Reports the gain of taking the nearer of the reference's two trials instead of the farther.
fn nearer(pairs: &[Pair]) -> String {
    let noise = |block: &[Pair], is_nearer: bool| {
        let of_them = block.iter().filter(|it| it.is_nearer == is_nearer);
        100.0 * mean(of_them.map(|it| it.noise))
    };
    let blocks = by_block(pairs);
    let gains = blocks.values().map(|it| noise(it, false) - noise(it, true));
    let Some(gain) = Shift::of(gains) else {
        return String::new();
    };
    let (near, far): (Vec<Pair>, Vec<Pair>) = pairs.iter().partition(|it| it.is_nearer);
    format!(
        "\npath over the nearer of the two references: standard deviation {:.1} %, over the \
         farther {:.1} %\n  the nearer is less noisy by {:+.1} points of percent ({:+.1} to \
         {:+.1}, p {:.2})\n",
        deviation(&near),
        deviation(&far),
        gain.by,
        gain.low,
        gain.high,
        gain.p,
    )
}
