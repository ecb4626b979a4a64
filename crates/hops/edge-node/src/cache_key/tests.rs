use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn keys(query: QueryRule, ignore: &[&str], headers: &[&str]) -> CacheKeys {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rules = KeyRules {
        query,
        query_ignore: owned(ignore),
        headers: owned(headers),
    };
    CacheKeys::with_secret(rules, &[7; 16])
}

fn of(keys: &CacheKeys, method: &str, url: &str, headers: &[(&str, &str)]) -> CacheKey {
    let (scheme, rest) = match url.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, rest),
        None => (Scheme::Http, url.strip_prefix("http://").expect("a URL")),
    };
    let (host, target) = rest.split_at(rest.find('/').expect("a path"));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let asked = Asked {
        method,
        scheme,
        host,
        path,
        query,
    };
    keys.key(&asked, |name, each| {
        for (found, value) in headers {
            if found.eq_ignore_ascii_case(name) {
                each(value.as_bytes());
            }
        }
    })
}

#[test]
fn equivalent_requests_share_a_key_and_others_do_not() {
    let plain = keys(QueryRule::AsWritten, &[], &[]);
    let same =
        |one: &str, other: &str| of(&plain, "GET", one, &[]) == of(&plain, "GET", other, &[]);
    assert!(same("http://Example.COM/a", "http://example.com:80/a"));
    assert!(same("http://example.com./a", "http://example.com/a"));
    assert!(same("https://a:443/a", "https://a/a"));
    assert!(same("http://a/b/../%63", "http://a/c"));
    assert!(!same("http://a:443/a", "http://a/a"));
    assert!(!same("https://a/a", "http://a/a"));
    assert!(!same("http://a/A", "http://a/a"));
    assert!(!same("http://a/a%2fb", "http://a/a/b"));
    assert!(!same("http://a/a?", "http://a/a"));
    assert!(!same("http://a/a?x=1&y=2", "http://a/a?y=2&x=1"));
    assert!(!same("http://a/a?b", "http://a/a/?b"));
    assert_ne!(
        of(&plain, "GET", "http://a/", &[]),
        of(&plain, "POST", "http://a/", &[])
    );
}

#[test]
fn queries_count_as_the_rules_say() {
    let same = |keys: &CacheKeys, one: &str, other: &str| {
        let url = |query: &str| format!("http://a/b{query}");
        of(keys, "GET", &url(one), &[]) == of(keys, "GET", &url(other), &[])
    };
    let sorted = keys(QueryRule::Sorted, &["t"], &[]);
    assert!(same(&sorted, "?b=1&a=2", "?a=2&b=1"));
    assert!(same(&sorted, "?t=1&b=1&&a=2", "?a=2&b=1&t=7"));
    assert!(same(&sorted, "?", ""));
    assert!(same(&sorted, "?t", ""));
    assert!(!same(&sorted, "?a=1&a=2", "?a=2&a=1"));
    assert!(!same(&sorted, "?a=1", "?a=1&b"));
    assert!(!same(&sorted, "?ab", "?a=b"));
    let written = keys(QueryRule::AsWritten, &["t"], &[]);
    assert!(same(&written, "?a&t=1&b", "?t&a&b"));
    assert!(!same(&written, "?a&b", "?b&a"));
    let ignored = keys(QueryRule::Ignored, &[], &[]);
    assert!(same(&ignored, "?a&b", ""));
}

#[test]
fn headers_that_count_set_keys_apart() {
    let keys = keys(QueryRule::AsWritten, &[], &["Accept", "X-Tenant"]);
    let key = |headers: &[(&str, &str)]| of(&keys, "GET", "http://a/", headers);
    assert_eq!(
        key(&[("ACCEPT", "x")]),
        key(&[("accept", "x"), ("other", "y")])
    );
    assert_ne!(key(&[("accept", "x")]), key(&[("x-tenant", "x")]));
    assert_ne!(key(&[("accept", "x")]), key(&[]));
    assert_ne!(key(&[("accept", "")]), key(&[]));
    assert_ne!(
        key(&[("accept", "xy")]),
        key(&[("accept", "x"), ("accept", "y")])
    );
}

#[test]
fn the_secret_sets_processes_apart() {
    let rules = KeyRules::default();
    let one = CacheKeys::new(rules.clone()).expect("random numbers");
    let other = CacheKeys::new(rules).expect("random numbers");
    let key = |keys: &CacheKeys| of(keys, "GET", "http://a/", &[]);
    assert_ne!(key(&one), key(&other));
    assert_eq!(key(&one), key(&one.clone()));
}

#[test]
fn many_parameters_are_sorted_too() {
    let keys = keys(QueryRule::Sorted, &[], &[]);
    let names: Vec<String> = (0..100).map(|number| format!("p{number}=1")).collect();
    let turned: Vec<String> = names.iter().rev().cloned().collect();
    let url = |names: &[String]| format!("http://a/?{}", names.join("&"));
    assert_eq!(
        of(&keys, "GET", &url(&names), &[]),
        of(&keys, "GET", &url(&turned), &[])
    );
}

proptest! {
    #[test]
    fn the_order_of_names_does_not_count_when_sorted(
        mut pairs in prop::collection::btree_map("[a-d]{1,2}", "[0-9&=]{0,2}", 0..6),
        seed in any::<u64>(),
    ) {
        pairs.retain(|_, value| !value.contains('&'));
        let keys = keys(QueryRule::Sorted, &[], &[]);
        let mut texts: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let sorted = of(&keys, "GET", &format!("http://a/?{}", texts.join("&")), &[]);
        let length = texts.len().max(1);
        texts.rotate_left(usize::try_from(seed % 64).expect("small") % length);
        let turned = of(&keys, "GET", &format!("http://a/?{}", texts.join("&")), &[]);
        prop_assert_eq!(sorted, turned);
    }

    #[test]
    fn different_requests_have_different_keys(
        urls in prop::collection::hash_set("http://[ab]{1,2}/[ab/]{0,4}(\\?[ab&=]{0,4})?", 1..64),
    ) {
        let keys = keys(QueryRule::AsWritten, &[], &[]);
        let mut known: HashMap<CacheKey, String> = HashMap::new();
        for url in urls {
            let key = of(&keys, "GET", &url, &[]);
            let other = known.insert(key, url.clone());
            prop_assert!(other.is_none(), "{} and {:?}", url, other);
        }
    }
}
