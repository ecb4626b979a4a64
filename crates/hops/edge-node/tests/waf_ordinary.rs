//! Ordinary requests that look like attacks, and attacks that look ordinary.

use edge_node::waf::{Class, Request, Rules, Scratch, Settings, Verdict, Waf};

const AGENT: (&[u8], &[u8]) = (
    b"user-agent",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
);

struct Tester {
    waf: Waf,
    scratch: Scratch,
}

impl Tester {
    fn new() -> Self {
        let settings = Settings {
            complete: true,
            ..Settings::default()
        };
        let rules = Rules::builtin().expect("built-in rules");
        Self {
            waf: Waf::new(settings, rules).expect("a WAF"),
            scratch: Scratch::default(),
        }
    }

    fn send(&mut self, target: &str, header: (&str, &str), body: &str) -> Verdict {
        let request = Request {
            method: if body.is_empty() { b"GET" } else { b"POST" },
            target: target.as_bytes(),
            headers: [AGENT, (header.0.as_bytes(), header.1.as_bytes())],
            body: body.as_bytes(),
        };
        self.waf.inspect(request, &mut self.scratch)
    }

    /// Sends a text in each place that takes one.
    fn everywhere(&mut self, text: &str) -> Vec<(&'static str, Verdict)> {
        let query = encoded(text);
        let target = format!("/search?q={query}&page=1");
        let form = format!("title=Hello&text={query}");
        let json = serde_json::json!({"key": 7, "text": text}).to_string();
        let cookie = format!("session=abc123; last={query}");
        let multipart = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n{text}\r\n--xyz--\r\n"
        );
        let kind = "content-type";
        let referer = format!("https://shop.example/search?q={query}");
        vec![
            ("query", self.send(&target, ("accept", "*/*"), "")),
            (
                "form",
                self.send("/", (kind, "application/x-www-form-urlencoded"), &form),
            ),
            ("form, no type", self.send("/", ("accept", "*/*"), &form)),
            ("json", self.send("/", (kind, "application/json"), &json)),
            ("cookie", self.send("/", ("cookie", &cookie), "")),
            ("referer", self.send("/", ("referer", &referer), "")),
            (
                "multipart",
                self.send("/", (kind, "multipart/form-data; boundary=xyz"), &multipart),
            ),
        ]
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// The texts of a file, a line each, with `\n` and `\r` for line ends.
fn lines(file: &str) -> impl Iterator<Item = String> {
    file.lines().map(|line| {
        line.replace("\\\\", "\u{1}")
            .replace("\\n", "\n")
            .replace("\\r", "\r")
            .replace('\u{1}', "\\")
    })
}

#[test]
fn ordinary_texts_pass() {
    let mut tester = Tester::new();
    let mut blocked = Vec::new();
    let mut sent = 0;
    for text in lines(include_str!("waf/ordinary.txt")) {
        for (place, verdict) in tester.everywhere(&text) {
            sent += 1;
            if verdict.is_blocked {
                blocked.push((place, text.clone(), verdict.matches[0].rule.clone()));
            }
        }
    }
    // A tenth of what the Core Rule Set blocks of such requests.
    assert!(
        blocked.len() * 100 <= sent,
        "{} of {sent}: {blocked:#?}",
        blocked.len()
    );
}

#[test]
fn attacks_of_each_class_are_blocked_in_each_place() {
    let mut tester = Tester::new();
    let mut missed = Vec::new();
    for line in include_str!("waf/attacks.txt").lines() {
        let (class, text) = line.split_once('\t').expect("a class and a text");
        assert!(
            Class::ALL.iter().any(|known| known.name() == class),
            "{class}"
        );
        for text in lines(text) {
            for (place, verdict) in tester.everywhere(&text) {
                // A page may well be on an address, and in a local network.
                let is_page = place == "referer" && matches!(class, "ssrf" | "rfi");
                if !verdict.is_blocked && !is_page {
                    missed.push((class, place, text.clone()));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
