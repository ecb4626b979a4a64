//! Requests that are made to take much time or memory, and settings.

use std::{io::Write as _, sync::LazyLock};

use edge_node::waf::{
    Class, Exclusion, Mode, Place, Request, Rules, Scratch, Settings, Verdict, Waf, WafError,
};
use proptest::prelude::*;

const JSON: (&[u8], &[u8]) = (b"content-type", b"application/json");
const FORM: (&[u8], &[u8]) = (b"content-type", b"application/x-www-form-urlencoded");

fn waf(settings: Settings) -> Waf {
    let rules = Rules::builtin().expect("built-in rules");
    Waf::new(settings, rules).expect("a WAF")
}

fn send(waf: &Waf, target: &[u8], headers: &[(&[u8], &[u8])], body: &[u8]) -> Verdict {
    let request = Request {
        method: b"POST",
        target,
        headers: headers.iter().copied(),
        body,
    };
    waf.inspect(request, &mut Scratch::default())
}

fn has(verdict: &Verdict, rule: &str) -> bool {
    verdict.matches.iter().any(|found| &*found.rule == rule)
}

#[test]
fn limits_give_a_verdict_and_a_count() {
    let waf = waf(Settings::default());
    let many: String = (0..10_000).map(|index| format!("p{index}=v&")).collect();
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("[{}\"\"]", "\"\",".repeat(30_000));
    let mut percent = "%".to_owned() + &"25".repeat(5000);
    percent.push_str("41");
    let percent = format!("/?q={percent}");
    let pairs = format!("/?{many}");
    let long = "a".repeat(200 * 1024);
    let text: (&[u8], &[u8]) = (b"content-type", b"text/plain");
    for (rule, is_blocked, target, header, body) in [
        ("limit-parameters", true, "/", FORM, many.as_str()),
        ("limit-parameters", true, pairs.as_str(), FORM, ""),
        ("limit-json-depth", true, "/", JSON, deep.as_str()),
        ("limit-json-values", true, "/", JSON, wide.as_str()),
        ("limit-decode-rounds", true, percent.as_str(), FORM, ""),
        ("limit-body-bytes", false, "/", text, long.as_str()),
    ] {
        let verdict = send(&waf, target.as_bytes(), &[header], body.as_bytes());
        assert!(has(&verdict, rule), "{rule}: {verdict:?}");
        assert_eq!(verdict.is_blocked, is_blocked, "{rule}");
        assert!(
            waf.counts().checks.iter().any(|(id, _)| *id == rule),
            "{rule}"
        );
    }
    assert_eq!(waf.counts().requests, 6);
    assert_eq!(waf.counts().attacks, 5);
}

#[test]
fn compressed_bodies_are_read_up_to_the_limit() {
    let waf = waf(Settings::default());
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let encoding: (&[u8], &[u8]) = (b"content-encoding", b"gzip");
    let bomb = gzip(&vec![b'\''; 20 << 20]);
    assert!(bomb.len() < 64 * 1024);
    assert!(has(
        &send(&waf, b"/", &[encoding], &bomb),
        "limit-inflated-body"
    ));
    let attack = gzip(b"q=1' union select null,version()-- ");
    assert!(send(&waf, b"/", &[FORM, encoding], &attack).is_blocked);
    let ordinary = gzip(b"q=hello+world");
    assert_eq!(send(&waf, b"/", &[FORM, encoding], &ordinary).score, 0);
    let broken = send(
        &waf,
        b"/",
        &[FORM, encoding],
        b"q=1' union select null,version()-- ",
    );
    assert!(
        broken.is_blocked,
        "a body that isn't compressed is read as it is"
    );
}

#[test]
fn requests_that_break_http_are_attacks() {
    let waf = waf(Settings::default());
    let length: (&[u8], &[u8]) = (b"content-length", b"3");
    for headers in [
        vec![length, (&b"transfer-encoding"[..], &b"chunked"[..])],
        vec![length, (&b"Content-Length"[..], &b"4"[..])],
        vec![(&b"content-length"[..], &b"+3"[..])],
        vec![(&b"x-name"[..], &b"a\r\nb: c"[..])],
    ] {
        assert!(send(&waf, b"/", &headers, b"").is_blocked, "{headers:?}");
    }
    assert_eq!(send(&waf, b"/", &[length], b"a=b").score, 0);
}

#[test]
fn exclusions_and_modes_are_kept() {
    let attack = b"/?comment=1'+union+select+null,version()--+";
    let excluded = |exclusion| {
        let settings = Settings {
            complete: true,
            exclusions: vec![exclusion],
            ..Settings::default()
        };
        send(&waf(settings), attack, &[], b"")
    };
    let by_rule = excluded(Exclusion {
        rule: Some("sqli-union-select".to_owned()),
        ..Exclusion::default()
    });
    assert!(by_rule.is_blocked && !has(&by_rule, "sqli-union-select"));
    let by_class = excluded(Exclusion {
        class: Some(Class::Sqli),
        place: Some(Place::Query),
        ..Exclusion::default()
    });
    assert_eq!(by_class.score, 0, "{by_class:?}");
    let by_field = excluded(Exclusion {
        field: Some("COMMENT".to_owned()),
        ..Exclusion::default()
    });
    assert_eq!(by_field.score, 0, "{by_field:?}");
    let settings = Settings {
        mode: Mode::Detect,
        ..Settings::default()
    };
    let detected = send(&waf(settings), attack, &[], b"");
    assert!(detected.is_attack && !detected.is_blocked);
    let found = &detected.matches[0];
    assert_eq!(
        (found.field.as_str(), found.place),
        ("comment", Place::Query)
    );
    assert!(found.excerpt.contains("union select"), "{found:?}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let error = |settings| {
        let rules = Rules::builtin().expect("built-in rules");
        let error: WafError = Waf::new(settings, rules).expect_err("an error");
        error.to_string()
    };
    let with = |exclusion| Settings {
        exclusions: vec![exclusion],
        ..Settings::default()
    };
    let unknown = Exclusion {
        rule: Some("nothing".to_owned()),
        ..Exclusion::default()
    };
    assert_eq!(
        error(with(unknown)),
        "exclusion 1 names the rule 'nothing', which doesn't exist"
    );
    assert!(error(with(Exclusion::default())).starts_with("exclusion 1 names nothing"));
    let paranoia = Settings {
        paranoia: 0,
        ..Settings::default()
    };
    assert_eq!(error(paranoia), "paranoia '0' is not one of 1 to 4");
    let threshold = Settings {
        threshold: 0,
        ..Settings::default()
    };
    assert!(error(threshold).starts_with("threshold '0'"));
}

static STRICT: LazyLock<Waf> = LazyLock::new(|| {
    waf(Settings {
        complete: true,
        paranoia: 4,
        ..Settings::default()
    })
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_request_panics(
        target: Vec<u8>,
        value: Vec<u8>,
        body in "[-'\"<>=&%;:a-z0-9(){}\\[\\]\\\\ \r\n/.,$|`+]{0,300}",
        kind in 0..6_usize,
    ) {
        let kinds: [&[u8]; 6] = [
            b"application/json",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=a",
            b"text/xml",
            b"",
            b"text/plain",
        ];
        let headers: [(&[u8], &[u8]); 4] = [
            (b"content-type", kinds[kind]),
            (b"cookie", &value),
            (b"referer", &target),
            (b"user-agent", body.as_bytes()),
        ];
        send(&STRICT, &target, &headers, body.as_bytes());
        send(&STRICT, body.as_bytes(), &headers, &value);
    }
}
