//! Timings.
use edge_node::waf::{Request, Rules, Scratch, Settings, Verdict, Waf};
use std::time::Instant;

fn time(name: &str, waf: &Waf, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
    let h: Vec<(&[u8], &[u8])> = headers
        .iter()
        .map(|(a, b)| (a.as_bytes(), b.as_bytes()))
        .collect();
    let mut s = Scratch::default();
    let mut run = || {
        waf.inspect(
            Request {
                method: method.as_bytes(),
                target: target.as_bytes(),
                headers: h.iter().copied(),
                body,
            },
            &mut s,
        )
    };
    let start = Instant::now();
    let mut v: Verdict = run();
    let first = start.elapsed();
    let n = (200_000_000 / (first.as_nanos().max(300))).clamp(3, 300_000) as u32;
    for _ in 0..n / 10 {
        v = run();
    }
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..n / 5 + 1 {
            v = run();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(n / 5 + 1));
    }
    println!(
        "{name:28} first {:>10.1} us  best {:>10.2} us  blocked {} {:?}",
        first.as_nanos() as f64 / 1e3,
        best / 1e3,
        v.is_blocked,
        v.matches
            .iter()
            .map(|m| (&*m.rule, m.place.name()))
            .take(3)
            .collect::<Vec<_>>()
    );
}

fn main() {
    let level = std::env::args().nth(1).map_or(1, |l| l.parse().unwrap());
    let start = Instant::now();
    let waf = Waf::new(
        Settings {
            paranoia: level,
            ..Settings::default()
        },
        Rules::builtin().unwrap(),
    )
    .unwrap();
    println!(
        "start {:?}, rules {}",
        start.elapsed(),
        Rules::builtin().unwrap().len()
    );
    let two = [("host", "shop.example"), ("user-agent", "curl/8.5.0")];
    let ua = [
        ("host", "shop.example"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-US,en;q=0.5"),
        (
            "cookie",
            "session=3f2504e04f8941d39a0c0305e82c3301; theme=dark",
        ),
        ("referer", "https://shop.example/search?q=red+shoes"),
    ];
    time("clean GET 2 headers", &waf, "GET", "/api/users", &two, b"");
    time("clean GET browser", &waf, "GET", "/api/users", &ua, b"");
    time(
        "query GET",
        &waf,
        "GET",
        "/search?q=red+shoes&page=2&sort=price",
        &two,
        b"",
    );
    time(
        "sqli",
        &waf,
        "GET",
        "/login?username=admin' OR '1'='1",
        &two,
        b"",
    );
    time(
        "xss",
        &waf,
        "GET",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E",
        &two,
        b"",
    );
    let form = [
        ("host", "x"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let json = [("host", "x"), ("content-type", "application/json")];
    let mut f = String::new();
    for i in 0..20 {
        f += &format!("field{i}=Some+ordinary+text+with+a+few+words%2C+{i}&");
    }
    time(
        &format!("form {}", f.len()),
        &waf,
        "POST",
        "/",
        &form,
        f.as_bytes(),
    );
    let f =
        "comment=".to_owned() + &"It%27s+a+text%3B+with+%22quotes%22+%26+%28more%29.+".repeat(20);
    time(
        &format!("form prose {}", f.len()),
        &waf,
        "POST",
        "/",
        &form,
        f.as_bytes(),
    );
    let j = format!(
        "[{}]",
        (0..320)
            .map(|i| format!("{{\"name\":\"Ann Lee {i}\",\"mail\":\"ann{i}@example.com\"}}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    time(
        &format!("json {} 640 values", j.len()),
        &waf,
        "POST",
        "/",
        &json,
        j.as_bytes(),
    );
    let k = 128 * 1024;
    for unit in [
        "'",
        "\"",
        "<",
        "<a ",
        "%25",
        "(",
        "((((",
        "\\",
        "&lt;",
        "&#x26;",
        "a.",
        "a.b'",
        "--",
        "/*",
        "../",
        "a=",
        "&",
        "=",
        ";",
        "| ",
        "a'b\"",
        "select ",
        "union select ",
        "or 1=1 ",
        "x on",
        "{{",
        "${",
        "$(",
        "[",
        "{\"a\":",
        "[[",
        "\\u005c",
        "JHs3Kjd9",
        "aaaa ",
        "/etc ",
        "<!--",
        "`",
        "%",
        "+",
        "<script",
        "cat ",
        ";a",
        "(select ",
        "'or'",
        "0x",
        "eval(",
        "a:b",
        "//",
        "http://",
        "\n",
        "\r\n",
        " ",
        "é",
        "\u{ff1c}",
        "php_",
        "java.io",
        "('",
        "'/*",
        "\")(",
        "*)(",
    ] {
        let body = unit.repeat(k / unit.len());
        for (n, h) in [("form", &form), ("json", &json)] {
            time(
                &format!("{n} {unit:?}"),
                &waf,
                "POST",
                "/",
                h,
                body.as_bytes(),
            );
        }
        let b = format!(
            "{{\"a\":\"{}\"}}",
            body.replace('\\', "\\\\").replace('"', "\\\"")
        );
        time(
            &format!("json string {unit:?}"),
            &waf,
            "POST",
            "/",
            &json,
            b.as_bytes(),
        );
    }
    let p: String = (0..10_000).map(|i| format!("p{i}=v{i}&")).collect();
    time("10000 params", &waf, "POST", "/", &form, p.as_bytes());
    let p: String = (0..1000).map(|i| format!("p{i}=v'{i}%3D%22&")).collect();
    time("1000 params odd", &waf, "POST", "/", &form, p.as_bytes());
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut e, &vec![b'\''; 100 << 20]).unwrap();
    let z = e.finish().unwrap();
    time(
        &format!("zip bomb {}", z.len()),
        &waf,
        "POST",
        "/",
        &[("content-encoding", "gzip")],
        &z,
    );
}
