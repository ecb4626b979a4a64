//! The legend: a colour for each path, and boxes that hide paths.

use maud::{Markup, html};

use crate::{
    record::Cell,
    report::plot,
    summary::{ScenarioSummary, Summary},
};

/// Number of colours in the style sheet, without that of the reference.
const COLOURS: usize = 8;

/// Largest number of paths with a box. Further paths are always shown.
const BOXES_MAX: usize = 64;

/// The paths of a run in the order in which they are shown: the reference first. Each build of a
/// path has its own entry.
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
        // All others keep their order.
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

    /// Returns the CSS classes of everything that belongs to the cell's path.
    pub(super) fn class(&self, cell: &Cell) -> String {
        self.class_at(self.index(cell))
    }

    fn class_at(&self, index: usize) -> String {
        // The first path is the reference. Where colours are used again, lines are dashed.
        match index.checked_sub(1) {
            None => format!("p{index} s0"),
            Some(other) => format!("p{index} s{} d{}", 1 + other % COLOURS, other / COLOURS % 3),
        }
    }

    /// Returns the number of the marker's shape on the path's lines.
    pub(super) fn shape(&self, cell: &Cell) -> usize {
        self.index(cell)
    }

    /// Returns the CSS rules that hide the paths of boxes without a check mark. They need no
    /// script.
    pub(super) fn style(&self) -> String {
        let rules = (0..self.paths.len().min(BOXES_MAX)).map(|index| {
            format!("body:has(#show{index}:not(:checked)) .p{index}:not(label){{display:none}}\n")
        });
        rules.collect()
    }

    /// Returns a box for each path; nothing without a path.
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

/// Returns the CSS class of a role, which gives its colour.
pub(super) fn role_class(scenario: &ScenarioSummary<'_>, role: &str) -> &'static str {
    const CLASSES: [&str; 6] = ["r0", "r1", "r2", "r3", "r4", "r5"];
    let position = scenario.roles.iter().position(|it| it == role);
    CLASSES[position.unwrap_or_default() % CLASSES.len()]
}

/// Returns the key to the colours of the roles.
pub(super) fn roles(scenario: &ScenarioSummary<'_>) -> Markup {
    html! {
        p.key {
            @for role in &scenario.roles {
                span .swatch.(role_class(scenario, role)) {} (role) " "
            }
        }
    }
}
