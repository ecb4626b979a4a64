//! Where the processes of a trial run.

use anyhow::Context as _;
use hopbench_analysis::record::Placement;

use crate::{
    plan::selection::check_cores,
    process::{Awake, Confined, allowed_cores},
};

/// Confines the processes of a path that are started while the value lives.
pub(super) fn confine_path(placement: Placement) -> anyhow::Result<Option<Confined>> {
    confine(placement, |[path, _]| path)
}

/// Confines the load generator, if it is started while the value lives.
pub(super) fn confine_client(placement: Placement) -> anyhow::Result<Option<Confined>> {
    confine(placement, |[_, client]| client)
}

/// Keeps the cores awake while the value lives, if the placement says so.
pub(super) fn keep_awake(placement: Placement) -> anyhow::Result<Option<Awake>> {
    let awake = (placement == Placement::Awake).then(Awake::begin);
    awake
        .transpose()
        .context("could not keep the cores awake; use another '--placement'")
}

/// Confines what is started to one of the parts of the cores: the path's and the client's.
fn confine(
    placement: Placement,
    choose: impl FnOnce([&[usize]; 2]) -> &[usize],
) -> anyhow::Result<Option<Confined>> {
    check_cores(&[placement])?;
    let cores = allowed_cores()?;
    let parts = match placement {
        Placement::Free | Placement::Awake => return Ok(None),
        Placement::SameCore => [&cores[..1]; 2],
        Placement::Split => {
            let (path, client) = cores.split_at(cores.len() - 1);
            [path, client]
        }
    };
    let confined = Confined::to(choose(parts));
    confined
        .map(Some)
        .with_context(|| format!("placement '{placement}'"))
}
