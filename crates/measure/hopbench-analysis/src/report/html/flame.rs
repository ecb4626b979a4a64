//! Flame graphs: each frame is as wide as its share of the samples, with callers above what they
//! call.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::{record::RoleProfile, text::percent};

const WIDTH: f64 = 1_200.0;
const PITCH: f64 = 17.0;
/// Largest depth that is drawn. The time of deeper calls is within that of their callers.
const DEPTH_MAX: usize = 64;
/// Smallest share of the samples that is drawn. Narrower frames cannot be seen.
const SHARE_MIN: f64 = 0.001;
/// Width of a letter, roughly.
const LETTER: f64 = 6.9;

/// A function as called by one caller, with the functions that it calls.
#[derive(Debug, Default)]
struct Frame<'a> {
    samples: u64,
    calls: BTreeMap<&'a str, Self>,
}

impl<'a> Frame<'a> {
    fn of(stacks: &'a BTreeMap<String, u64>) -> Self {
        let mut root = Self::default();
        for (stack, samples) in stacks {
            root.samples += samples;
            let mut frame = &mut root;
            for name in stack.split(';').take(DEPTH_MAX) {
                frame = frame.calls.entry(name).or_default();
                frame.samples += samples;
            }
        }
        root
    }

    /// Counts the levels of calls that are wide enough to be seen.
    fn depth(&self, all: u64) -> usize {
        let calls = self.calls.values();
        let seen = calls.filter(|call| call.samples as f64 >= SHARE_MIN * all as f64);
        seen.map(|call| 1 + call.depth(all))
            .max()
            .unwrap_or_default()
    }
}

/// Draws the flame graph of one role.
pub(super) fn draw(role: &str, profile: &RoleProfile) -> Markup {
    let root = Frame::of(&profile.stacks);
    let height = root.depth(root.samples).max(1) as f64 * PITCH;
    let title = format!("Flame graph of '{role}': {} samples", root.samples);
    html! {
        figure.flame {
            figcaption { (title) }
            div.scroll tabindex="0" {
                svg viewBox={ "0 0 " (WIDTH) " " (format!("{height:.0}")) } role="img"
                    aria-label=(title) {
                    (calls(&root, root.samples, 0.0, 0))
                }
            }
        }
    }
}

fn calls(frame: &Frame<'_>, all: u64, left: f64, depth: usize) -> Markup {
    let mut x = left;
    let placed = frame.calls.iter().map(|(name, call)| {
        let width = WIDTH * call.samples as f64 / all as f64;
        let place = (*name, call, x, width);
        x += width;
        place
    });
    let seen = placed.filter(|(_, call, ..)| call.samples as f64 >= SHARE_MIN * all as f64);
    html! {
        @for (name, call, x, width) in seen {
            g {
                title { (name) ", " (percent(call.samples as f64 / all as f64)) }
                rect class=(class(name)) x=(format!("{x:.1}")) width=(format!("{width:.1}"))
                    y=(format!("{:.0}", depth as f64 * PITCH))
                    height=(format!("{:.0}", PITCH - 1.0)) {}
                @if let Some(label) = label(name, width) {
                    text x=(format!("{:.1}", x + 3.0))
                        y=(format!("{:.1}", (depth as f64 + 0.75) * PITCH)) { (label) }
                }
            }
            (calls(call, all, x, depth + 1))
        }
    }
}

/// Returns the CSS class of a function: the same for the same name, and another one in the kernel.
fn class(name: &str) -> &'static str {
    const OWN: [&str; 4] = ["u0", "u1", "u2", "u3"];
    match name.ends_with("_[k]") {
        true => "k",
        false => OWN[name.bytes().map(usize::from).sum::<usize>() % OWN.len()],
    }
}

/// Returns as much of the end of a name as there is room for, since the end says most. `None` if
/// there is too little room.
fn label(name: &str, width: f64) -> Option<String> {
    let room = width / LETTER;
    let letters: Vec<char> = name.trim_end_matches("_[k]").chars().collect();
    if letters.len() as f64 <= room {
        return Some(letters.into_iter().collect());
    }
    if room < 4.0 {
        return None;
    }
    let skipped = letters.iter().enumerate();
    let skipped = skipped.filter(|(index, _)| (letters.len() - index) as f64 <= room - 1.0);
    Some(format!(
        "…{}",
        skipped.map(|(_, letter)| *letter).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::profile::tests::profile;

    #[test]
    fn frames_are_as_wide_as_their_share() {
        let profile = profile();
        let drawn = draw("hop", &profile.roles["hop"]).into_string();
        let title = |part: &str| drawn.matches(&format!("<title>{part}</title>")).count();
        assert_eq!(title("serve, 90 %"), 1, "{drawn}");
        assert_eq!(title("sys_write_[k], 60 %"), 1, "{drawn}");
        assert_eq!(
            title("&lt;Vec&lt;T&gt; as Clone&gt;::clone, 30 %"),
            1,
            "{drawn}"
        );
        // There are eight frames on five levels.
        assert_eq!(drawn.matches("<rect").count(), 8, "{drawn}");
        assert!(drawn.contains("viewBox=\"0 0 1200 85\""), "{drawn}");
        assert!(drawn.contains("width=\"1080.0\""), "{drawn}");
    }

    #[test]
    fn a_label_has_its_end_where_it_is_too_long() {
        assert_eq!(label("short", 100.0).as_deref(), Some("short"));
        assert_eq!(
            label("std::io::write", LETTER * 6.5).as_deref(),
            Some("…write")
        );
        assert_eq!(label("long_name", 10.0), None);
    }
}
