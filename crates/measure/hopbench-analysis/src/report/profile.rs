//! Profiles as tables: where the time went, by function and by system call.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    sheet::{Entry, Medium, Table},
    tables::Section,
    text::{hundredths, percent},
};
use crate::record::{Profile, RoleProfile};

/// Largest number of functions that are listed for a role. The flame graph has all of them.
const FUNCTIONS_MAX: usize = 12;

/// Returns the profiles for a terminal. Empty without any.
pub fn terminal(profiles: &[Profile]) -> String {
    text(profiles, Medium::Terminal)
}

/// Returns the profiles as Markdown. Empty without any.
pub fn markdown(profiles: &[Profile]) -> String {
    text(profiles, Medium::Markdown)
}

fn text(profiles: &[Profile], medium: Medium) -> String {
    let mut out = String::new();
    for profile in profiles {
        out += &format!(
            "\n## Profile of {}\n\n{}\n",
            profile.cell.full_name(),
            summary(profile)
        );
        for note in &profile.notes {
            out += &match medium {
                Medium::Markdown => format!("\n> **Note:** {note}\n"),
                Medium::Terminal => format!("\nnote: {note}\n"),
            };
        }
        out.extend(sections(profile).iter().map(|section| section.text(medium)));
    }
    out
}

/// Says how many samples and requests a profile has.
pub(super) fn summary(profile: &Profile) -> String {
    let samples: u64 = profile.roles.values().map(RoleProfile::samples).sum();
    let mut out = String::from("Recorded under a separate load, which is not a trial.");
    if samples > 0 {
        out += &format!(
            " It has {samples} samples, {} per second of CPU time, over {} requests.",
            profile.frequency_hz, profile.requests
        );
    }
    if profile.requests_traced > 0 {
        out += &format!(
            " System calls were counted over {} other requests.",
            profile.requests_traced
        );
    }
    out
}

pub(super) fn sections(profile: &Profile) -> Vec<Section> {
    let functions = profile.roles.iter().filter_map(functions);
    functions.chain(system_calls(profile)).collect()
}

/// Returns the functions of a role by their own time. `None` without a sample.
fn functions((role, of_role): (&String, &RoleProfile)) -> Option<Section> {
    let all = of_role.samples();
    let mut sheet = Table::new(1, ["function", "share", "samples"]);
    for (name, samples) in of_role.by_function().into_iter().take(FUNCTIONS_MAX) {
        sheet.push(vec![
            name.into(),
            percent(samples as f64 / all as f64).into(),
            samples.to_string().into(),
        ]);
    }
    (all > 0).then(|| Section {
        heading: format!("{role}: functions by self time"),
        text: None,
        sheet,
    })
}

/// Returns a table of system calls, with a column for each role. `None` if none was counted.
fn system_calls(profile: &Profile) -> Option<Section> {
    let roles: Vec<&String> = profile.roles.keys().collect();
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    let counted = profile.roles.values().flat_map(|role| &role.system_calls);
    for (name, count) in counted {
        *calls.entry(name).or_default() += count;
    }
    if calls.is_empty() || profile.requests_traced == 0 {
        return None;
    }
    let mut calls: Vec<(&str, u64)> = calls.into_iter().collect();
    calls.sort_by_key(|(name, count)| (Reverse(*count), *name));
    let columns = ["system call".to_owned()].into_iter();
    let mut sheet = Table::new(1, columns.chain(roles.iter().map(|role| (*role).clone())));
    let per_request = |count: u64| count as f64 / profile.requests_traced as f64;
    for (name, all) in calls {
        // Calls as rare as this belong to starting and stopping.
        if per_request(all) < 0.005 {
            continue;
        }
        let mut row: Vec<Entry> = vec![name.into()];
        row.extend(profile.roles.values().map(|role| {
            let count = role.system_calls.get(name).copied();
            let count = count.map(|count| hundredths(per_request(count)));
            Entry::from(count.unwrap_or_else(|| "–".to_owned()))
        }));
        sheet.push(row);
    }
    (!sheet.is_empty()).then(|| Section {
        heading: "System calls per request".to_owned(),
        text: Some(
            "Counting slows the load down, so where requests are taken in batches, there are more \
             calls per request than usual."
                .to_owned(),
        ),
        sheet,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{record::Cell, report::tests};

    pub(in crate::report) fn profile() -> Profile {
        let stacks = [
            ("worker;main;serve;write;sys_write_[k]", 60),
            ("worker;main;serve;<Vec<T> as Clone>::clone", 30),
            ("worker;main;wait;sys_epoll_[k]", 10),
        ];
        let trial = tests::trial("fast", 8, 1, 0, 1_000, 100);
        Profile {
            cell: Cell {
                scenario: "matrix".to_owned(),
                ..trial.planned.cell
            },
            frequency_hz: 997,
            requests: 50_000,
            requests_traced: 1_000,
            roles: [(
                "hop".to_owned(),
                RoleProfile {
                    stacks: stacks
                        .map(|(stack, count)| (stack.to_owned(), count))
                        .into(),
                    system_calls: [("write".to_owned(), 1_000), ("openat".to_owned(), 1)].into(),
                },
            )]
            .into(),
            notes: vec!["'x' is not installed".to_owned()],
        }
    }

    #[test]
    fn functions_and_calls_are_tables() {
        insta::assert_snapshot!("profile", markdown(&[profile()]));
        assert_eq!(markdown(&[]), "");
    }

    #[test]
    fn a_profile_without_anything_says_why() {
        let nothing = Profile {
            roles: Default::default(),
            ..profile()
        };
        let text = markdown(&[nothing]);
        assert!(text.contains("'x' is not installed"), "{text}");
        assert!(!text.contains('|'), "{text}");
    }
}
