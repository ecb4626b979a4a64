//! Where the processes of a trial run.

use anyhow::Context as _;
use hopbench_analysis::record::Placement;

use crate::{
    plan::selection::check_cores,
    process::{Awake, Confined, allowed_cores},
};

/// Confines the processes of a path that are started while the value lives.
pub(super) fn confine_path(placement: Placement) -> anyhow::Result<Option<Confined>> {
    confine(placement, |cores| match placement {
        Placement::SameCore => Some(&cores[..1]),
        Placement::Split => Some(&cores[..cores.len() - 1]),
        Placement::Free | Placement::Awake => None,
    })
}

/// Confines the load generator, if it is started while the value lives.
pub(super) fn confine_client(placement: Placement) -> anyhow::Result<Option<Confined>> {
    confine(placement, |cores| match placement {
        Placement::SameCore => Some(&cores[..1]),
        Placement::Split => Some(&cores[cores.len() - 1..]),
        Placement::Free | Placement::Awake => None,
    })
}

/// Keeps the cores awake while the value lives, if the placement says so.
pub(super) fn keep_awake(placement: Placement) -> anyhow::Result<Option<Awake>> {
    let awake = (placement == Placement::Awake).then(Awake::begin);
    awake
        .transpose()
        .context("could not keep the cores awake; use another '--placement'")
}

fn confine(
    placement: Placement,
    choose: impl FnOnce(&[usize]) -> Option<&[usize]>,
) -> anyhow::Result<Option<Confined>> {
    check_cores(&[placement])?;
    let cores = allowed_cores()?;
    let chosen = choose(&cores).map(Confined::to);
    chosen
        .transpose()
        .with_context(|| format!("placement '{placement}'"))
}
