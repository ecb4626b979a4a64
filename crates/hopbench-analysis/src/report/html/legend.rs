//! Which path has which colour, and the boxes by which paths are left out.

use maud::{Markup, html};

use super::plot;
use crate::{
    record::Cell,
    summary::{ScenarioSummary, Summary},
};

/// Colours of the style sheet besides the reference's.
const COLOURS: usize = 8;

/// More are not chosen from with boxes; they are all shown.
const BOXES_MAX: usize = 64;

/// The paths of a run in the order in which they are shown, builds apart, the reference first.
#[derive(Debug)]
pub(super) struct Legend {
    paths: Vec<String>,
}

impl Legend {
    pub(super) fn new(summary: &Summary<'_>) -> Self {
        let mut paths: Vec<(String, bool)> = Vec::new();
        let tables = summary.scenarios.iter().flat_map(|it| &it.tables);
        for row in tables.flat_map(|table| &table.rows) {
            let name = row.cell.path_and_build();
            if !paths.iter().any(|(known, _)| *known == name) {
                paths.push((name, row.is_reference));
            }
        }
        // Otherwise as they come.
        paths.sort_by_key(|(_, is_reference)| !is_reference);
        let paths = paths.into_iter().map(|(name, _)| name);
        Self {
            paths: paths.collect(),
        }
    }

    fn index(&self, cell: &Cell) -> usize {
        let name = cell.path_and_build();
        let position = self.paths.iter().position(|known| *known == name);
        position.expect("every cell's path is in the legend")
    }

    /// Of everything that belongs to the cell's path.
    pub(super) fn class(&self, cell: &Cell) -> String {
        self.class_at(self.index(cell))
    }

    fn class_at(&self, index: usize) -> String {
        // The first is what all others are compared with. Where colours are used again, lines are
        // broken.
        match index.checked_sub(1) {
            None => format!("p{index} s0"),
            Some(other) => format!("p{index} s{} d{}", 1 + other % COLOURS, other / COLOURS % 3),
        }
    }

    /// Of the marks on its lines.
    pub(super) fn shape(&self, cell: &Cell) -> usize {
        self.index(cell)
    }

    /// What the boxes do, without a script.
    pub(super) fn style(&self) -> String {
        let rules = (0..self.paths.len().min(BOXES_MAX)).map(|index| {
            format!("body:has(#show{index}:not(:checked)) .p{index}:not(label){{display:none}}\n")
        });
        rules.collect()
    }

    /// A box for each path; nothing without one.
    pub(super) fn boxes(&self) -> Markup {
        if self.paths.is_empty() {
            return html! {};
        }
        html! {
            fieldset .legend {
                legend { "Paths shown in the charts" }
                @for (index, name) in self.paths.iter().take(BOXES_MAX).enumerate() {
                    label class=(self.class_at(index)) {
                        input type="checkbox" id={ "show" (index) } checked;
                        svg .swatch viewBox="0 0 12 12" aria-hidden="true" {
                            path .marker d=(plot::marker(index, 6.0, 6.0)) {}
                        }
                        (name)
                    }
                }
            }
        }
    }
}

/// Roles by the order in which they have their colours.
pub(super) fn role_class(scenario: &ScenarioSummary<'_>, role: &str) -> &'static str {
    const CLASSES: [&str; 6] = ["r0", "r1", "r2", "r3", "r4", "r5"];
    let position = scenario.roles.iter().position(|it| it == role);
    CLASSES[position.unwrap_or_default() % CLASSES.len()]
}

/// What colour is which role's.
pub(super) fn roles(scenario: &ScenarioSummary<'_>) -> Markup {
    html! {
        p.key {
            @for role in &scenario.roles {
                span .swatch.(role_class(scenario, role)) {} (role) " "
            }
        }
    }
}
