//! How long an answer may be used (RFC 9111, sections 3, 4.2 and 5; RFC 5861).

use super::control::Directives;
use crate::{date, fields::Fields, head::Head, received::Received};

/// How an answer may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Milliseconds that it is fresh, counted from its origin.
    pub lifetime_ms: i64,
    /// Milliseconds that it was old when it was received.
    pub initial_age_ms: i64,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: i64,
    /// Whether it must be validated each time.
    pub no_cache: bool,
    /// Whether it must not be used when it is stale, whatever else is said.
    pub must_revalidate: bool,
    /// Milliseconds that it may be stale while it is fetched again.
    pub stale_while_revalidate_ms: i64,
    /// Milliseconds that it may be stale if there is an error.
    pub stale_if_error_ms: i64,
}

/// Statuses that may be kept without being told for how long (RFC 9110, section 15.1).
const HEURISTIC: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];

/// Statuses of which this program knows what they mean for a cache.
const UNDERSTOOD: [u16; 34] = [
    200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406,
    407, 408, 409, 410, 411, 413, 414, 415, 417, 421, 500, 501, 502, 503, 504,
];

/// Share of an answer's time since it was last changed for which it counts as fresh, if nothing
/// else is said: a tenth is what RFC 9111, section 4.2.2 suggests.
const HEURISTIC_SHARE: i64 = 10;

/// Longest such time.
const HEURISTIC_MS_MAX: i64 = 24 * 3_600 * 1_000;

impl Policy {
    /// Finds out how an answer may be used; `None` if it must not be stored.
    pub(crate) fn of<F: Fields + ?Sized>(
        request: &F,
        directives: &Directives,
        received: &Received,
    ) -> Option<Self> {
        let head = &received.head;
        let may_store = may_store(request, directives, head);
        may_store.then(|| Self::new(directives, received))
    }

    /// Finds out how a stored answer may be used.
    pub(crate) fn new(directives: &Directives, received: &Received) -> Self {
        let head = &received.head;
        let ms = |seconds: Option<u64>| {
            i64::try_from(seconds.unwrap_or(0))
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000)
        };
        let date_ms = head
            .get("date")
            .and_then(date::parse)
            .unwrap_or(received.received_ms);
        let apparent_ms = (received.received_ms - date_ms).max(0);
        let age = age(head);
        let delay_ms = (received.received_ms - received.requested_ms).max(0);
        let corrected_ms = ms(Some(age.unwrap_or(0))) + delay_ms;
        let lifetime_ms = match age {
            Some(_) => explicit(directives, head, date_ms)
                .unwrap_or_else(|| heuristic(directives, head, date_ms)),
            // It says that it is old, but not how old.
            None => 0,
        };
        Self {
            lifetime_ms,
            initial_age_ms: apparent_ms.max(corrected_ms),
            received_ms: received.received_ms,
            no_cache: directives.no_cache,
            must_revalidate: directives.must_revalidate
                || directives.proxy_revalidate
                || directives.s_maxage.is_some(),
            stale_while_revalidate_ms: ms(directives.stale_while_revalidate),
            stale_if_error_ms: ms(directives.stale_if_error),
        }
    }

    /// Returns how old the answer is.
    pub fn age_ms(&self, now_ms: i64) -> i64 {
        self.initial_age_ms
            .saturating_add((now_ms - self.received_ms).max(0))
    }

    /// Returns for how long the answer is still fresh; below zero if it is stale.
    pub fn fresh_for_ms(&self, now_ms: i64) -> i64 {
        self.lifetime_ms.saturating_sub(self.age_ms(now_ms))
    }

    /// Returns whether a request with these directives may have the answer without asking.
    pub fn may_use(&self, request: &Directives, now_ms: i64) -> bool {
        let ms = |seconds: u64| {
            i64::try_from(seconds)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000)
        };
        if self.no_cache || request.no_cache {
            return false;
        }
        let age_ms = self.age_ms(now_ms);
        if request.max_age.is_some_and(|most| age_ms > ms(most)) {
            return false;
        }
        let fresh_ms = self.lifetime_ms.saturating_sub(age_ms);
        if fresh_ms > request.min_fresh.map_or(0, ms) {
            return true;
        }
        let stale_ms = -fresh_ms;
        request.min_fresh.is_none()
            && !self.must_revalidate
            && request.max_stale.is_some_and(|most| stale_ms <= ms(most))
    }

    /// Returns whether the answer may be used now, while it is fetched again.
    pub fn may_use_meanwhile(&self, request: &Directives, now_ms: i64) -> bool {
        !self.no_cache
            && !self.must_revalidate
            && !request.no_cache
            && request.max_age.is_none()
            && request.min_fresh.is_none()
            && -self.fresh_for_ms(now_ms) < self.stale_while_revalidate_ms
    }

    /// Returns whether the answer may be used as there is no other: the upstream failed to answer,
    /// or with `has_status` said that it can't.
    pub fn may_use_after_error(&self, now_ms: i64, has_status: bool) -> bool {
        if self.no_cache || self.must_revalidate {
            return false;
        }
        // Without a connection, a cache may serve what it has (RFC 9111, section 4.2.4).
        !has_status || -self.fresh_for_ms(now_ms) < self.stale_if_error_ms
    }
}

/// Returns whether an answer may be stored by a cache that several clients share.
fn may_store<F: Fields + ?Sized>(request: &F, directives: &Directives, head: &Head) -> bool {
    let is_understood = UNDERSTOOD.contains(&head.status);
    let is_forbidden = match directives.must_understand {
        true => !is_understood,
        false => directives.no_store,
    };
    if is_forbidden || directives.private || matches!(head.status, 100..=199 | 206 | 304) {
        return false;
    }
    let is_for_all =
        directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.has("authorization") && !is_for_all {
        return false;
    }
    if Directives::read(request).no_store || head.list("vary").any(|name| name == b"*") {
        return false;
    }
    let is_explicit =
        directives.max_age.is_some() || directives.s_maxage.is_some() || head.has("expires");
    if is_explicit || directives.public {
        return true;
    }
    // A cookie is meant for one client, unless somebody said otherwise.
    HEURISTIC.contains(&head.status)
        && !head.has("set-cookie")
        && (head.has("last-modified") || head.has("etag") || directives.no_cache)
}

/// Reads how old an answer was when it was sent. Of a list the first element counts (RFC 9111,
/// section 5.1). Returns `None` for what isn't an age: the answer has been in another cache, and
/// nobody knows for how long, so this one doesn't count it as fresh.
fn age(head: &Head) -> Option<u64> {
    let mut all = head.all("age");
    let Some(first) = all.next() else {
        return Some(0);
    };
    if all.next().is_some() {
        return None;
    }
    let text = first.split(|&byte| byte == b',').next()?.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(str::from_utf8(text).ok()?.parse().unwrap_or(1 << 31))
}

/// Returns the lifetime that an answer says.
fn explicit(directives: &Directives, head: &Head, date_ms: i64) -> Option<i64> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(
            i64::try_from(seconds)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000),
        );
    }
    let mut all = head.all("expires");
    let first = all.next()?;
    // What isn't a date has passed (RFC 9111, section 5.3).
    let expires = match all.next() {
        Some(_) => None,
        None => date::parse(first),
    };
    Some(expires.map_or(0, |expires_ms| (expires_ms - date_ms).max(0)))
}

/// Returns a lifetime for an answer that says none.
fn heuristic(directives: &Directives, head: &Head, date_ms: i64) -> i64 {
    if !HEURISTIC.contains(&head.status) && !directives.public {
        return 0;
    }
    let Some(changed_ms) = head.get("last-modified").and_then(date::parse) else {
        return 0;
    };
    ((date_ms - changed_ms).max(0) / HEURISTIC_SHARE).min(HEURISTIC_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Framing;

    const NOW: i64 = 1_000_000_000_000;

    fn policy(fields: &str, status: u16) -> Option<Policy> {
        let head = format!("HTTP/1.1 {status} X\r\n{fields}");
        let head = Head::parse(head.into()).expect("a head");
        let received = Received {
            head,
            framing: Framing::Length,
            requested_ms: NOW,
            received_ms: NOW,
        };
        let request: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        Policy::of(&request, &Directives::read(&received.head), &received)
    }

    fn fresh_s(fields: &str) -> i64 {
        policy(fields, 200).map_or(-1, |policy| policy.lifetime_ms / 1_000)
    }

    #[test]
    fn lifetimes_come_from_the_strongest_source() {
        let date = date::write(NOW);
        let later = date::write(NOW + 50_000);
        let before = date::write(NOW - 1_000_000);
        for (fields, seconds) in [
            (format!("Date: {date}\r\nExpires: {later}\r\n"), 50),
            (
                format!("Date: {date}\r\nExpires: {later}\r\nCache-Control: max-age=9\r\n"),
                9,
            ),
            ("Cache-Control: max-age=9, s-maxage=7\r\n".to_owned(), 7),
            ("Expires: 0\r\n".to_owned(), 0),
            (format!("Date: {date}\r\nLast-Modified: {before}\r\n"), 100),
            ("Cache-Control: max-age=9\r\nAge: x\r\n".to_owned(), 0),
            ("Cache-Control: no-store\r\n".to_owned(), -1),
            ("Cache-Control: private, max-age=9\r\n".to_owned(), -1),
            ("Cache-Control: max-age=9\r\nVary: a, *\r\n".to_owned(), -1),
            (String::new(), -1),
        ] {
            assert_eq!(fresh_s(&fields), seconds, "{fields}");
        }
    }

    #[test]
    fn what_is_stale_is_used_only_as_told() {
        let policy = |fields: &str| policy(fields, 200).expect("storable");
        let later = NOW + 15_000;
        let none = Directives::default();
        let plain = policy("Cache-Control: max-age=10\r\n");
        assert!(plain.may_use(&none, NOW) && !plain.may_use(&none, later));
        assert!(plain.may_use_after_error(later, false));
        assert!(!plain.may_use_after_error(later, true));
        let mut request = Directives {
            max_stale: Some(6),
            ..Directives::default()
        };
        assert!(plain.may_use(&request, later));
        request.max_stale = Some(4);
        assert!(!plain.may_use(&request, later));
        let strict = policy("Cache-Control: max-age=10, must-revalidate, stale-if-error=99\r\n");
        request.max_stale = Some(100);
        assert!(!strict.may_use(&request, later) && !strict.may_use_after_error(later, false));
        let lenient = policy("Cache-Control: max-age=10, stale-while-revalidate=9\r\n");
        assert!(lenient.may_use_meanwhile(&none, later));
        assert!(!lenient.may_use_meanwhile(&none, NOW + 20_000));
    }

    #[test]
    fn a_status_that_is_unknown_is_kept_only_if_that_is_safe() {
        assert!(policy("Cache-Control: max-age=9\r\n", 599).is_some());
        assert!(policy("Cache-Control: max-age=9, must-understand\r\n", 599).is_none());
        assert!(
            policy(
                "Cache-Control: max-age=9, must-understand, no-store\r\n",
                200
            )
            .is_some()
        );
        assert!(policy("Last-Modified: x\r\n", 500).is_none());
        assert!(policy("Cache-Control: max-age=9\r\n", 304).is_none());
    }
}
