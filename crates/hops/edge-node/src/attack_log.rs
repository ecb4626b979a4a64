//! Says in the log why a request is an attack.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{state::Counters, waf::Verdict};

/// Notes attacks, at most so many in a second: a flood of attacks shall not become a flood of
/// lines.
#[derive(Debug, Default)]
pub(crate) struct AttackLog {
    /// The second of now in the upper half, and in the lower one the attacks noted in it.
    noted: AtomicU64,
}

/// Most attacks that are noted in a second.
const ATTACKS_MAX: u64 = 100;

impl AttackLog {
    /// Counts an attack, and notes the rules that found it.
    pub(crate) fn note(
        &self,
        verdict: &Verdict,
        (client, method, target): (IpAddr, &str, &str),
        counters: &Counters,
        now_ms: i64,
    ) {
        counters.waf_attacks.add(1);
        if verdict.is_blocked {
            counters.waf_blocked.add(1);
        }
        if !self.has_room(now_ms) {
            return counters.attack_lines_dropped.add(verdict.matches.len());
        }
        let fate = if verdict.is_blocked {
            "refused"
        } else {
            "seen"
        };
        let path = target.split('?').next().unwrap_or_default();
        for found in &verdict.matches {
            let (rule, place, field) = (&found.rule, found.place.name(), &found.field);
            let excerpt = &found.excerpt;
            tracing::warn!(
                "attack {fate}: {client} {method} {path:?}: rule '{rule}' at {place} {field:?}: \
                 {excerpt:?}"
            );
        }
    }

    fn has_room(&self, now_ms: i64) -> bool {
        let second = u64::try_from(now_ms).unwrap_or_default() / 1_000;
        let noted = self.noted.fetch_update(Relaxed, Relaxed, |noted| {
            Some(match noted >> 32 == second {
                true => noted + 1,
                false => second << 32 | 1,
            })
        });
        let before = noted.unwrap_or_else(|noted| noted);
        before >> 32 != second || before & u64::from(u32::MAX) < ATTACKS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many() {
        let log = AttackLog::default();
        for now_ms in [5_000, 6_999, 7_000] {
            let noted = (0..3 * ATTACKS_MAX).filter(|_| log.has_room(now_ms));
            assert_eq!(noted.count() as u64, ATTACKS_MAX, "{now_ms}");
        }
    }
}
