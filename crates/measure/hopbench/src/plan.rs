//! Decides what to measure, before anything runs.

pub(crate) mod commands;
pub(crate) mod goal;
pub(crate) mod planner;
pub(crate) mod selection;
pub(crate) mod several;
pub(crate) mod toolbox;
pub(crate) mod variants;
pub(crate) mod work;
