//! Goal: a path file alone says how its front is asked, over TLS and by HTTP/2; what the front does
//! otherwise is told; runs say how they asked, and others aren't compared with them. Method: a
//! relay that ends TLS before the origin, which takes HTTP/1.1 and HTTP/2.

mod support;

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};
use support::{
    bench::{Bench, run_short, short},
    installed, text,
};

/// Ends TLS. Its arguments are a port, the origin's port, the names of protocols, and files with
/// the certificate and the key.
const RELAY: &str = r#"
import asyncio, ssl, sys
port, origin, alpn, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
if alpn:
    context.set_alpn_protocols(alpn.split(','))
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def relay(reader, writer):
    there, back = await asyncio.open_connection('127.0.0.1', int(origin))
    await asyncio.gather(pump(reader, back), pump(there, writer))
async def main():
    server = await asyncio.start_server(relay, '127.0.0.1', int(port), ssl=context)
    await server.serve_forever()
asyncio.run(main())
"#;

/// Answers as a server with TLS does that got something else: with an alert.
const ALERT: &str = r#"
import socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b'\x15\x03\x01\x00\x02\x02\x46')
    client.close()
"#;

/// The relay as a hop, with its protocols and files to fill in.
const RELAYED: &str = r#"
summary = 'A relay that ends TLS.'
front = 'https://127.0.0.1:{{port:front}}'
start-timeout-ms = 10000
[[process]]
name = 'origin'
role = 'origin'
command = ['{{bin:http_baseline}}', '--listen=127.0.0.1:{{port:origin}}', '--exit-with-stdin']
version = ['{{bin:http_baseline}}', '--version']
stops-with-stdin = true
[[process]]
name = 'relay'
role = 'hop'
command = ['{{program:python3}}', '{{file:relay.py}}', '{{port:front}}', '{{port:origin}}',
           'ALPN', 'CERTIFICATE', 'KEY']
version = ['{{program:python3}}', '--version']
"#;

/// An origin that is asked by HTTP/2 without TLS.
const PLAIN: &str = r#"
summary = 'The origin.'
front = 'http://127.0.0.1:{{port:front}}'
protocol = '{{parameter:protocol}}'
[parameters]
protocol = 'h2'
[[process]]
name = 'origin'
role = 'origin'
command = ['{{bin:http_baseline}}', '--listen=127.0.0.1:{{port:front}}', '--exit-with-stdin']
version = ['{{bin:http_baseline}}', '--version']
stops-with-stdin = true
"#;

fn relayed(alpn: &str) -> String {
    let path = RELAYED
        .replace("ALPN", alpn)
        .replace("CERTIFICATE", "{{tls:certificate}}")
        .replace("KEY", "{{tls:key}}");
    format!("{path}[[file]]\nname = 'relay.py'\ncontent = '''{RELAY}'''\n")
}

fn with_h2(path: &str) -> String {
    format!("protocol = 'h2'\n{path}")
}

/// Verifies a path that must not be right; returns what was told.
fn told_by_verify(bench: &Bench, path: &str) -> String {
    let verified = bench.run(&["verify", path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    text(&verified.stdout)
}

fn assert_refused(refused: &Output, code: i32, expected: &str) {
    let told = text(&refused.stderr) + &text(&refused.stdout);
    assert_eq!(refused.status.code(), Some(code), "{told}");
    assert!(told.contains(expected), "'{expected}' is missing: {told}");
}

/// Makes sure that no file below a directory has a key.
fn assert_no_keys(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            assert_no_keys(&path);
        } else {
            let bytes = fs::read(&path).expect("readable");
            let has_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY");
            assert!(!has_key, "{}", path.display());
        }
    }
}

#[test]
fn paths_are_verified_and_measured_over_tls_and_by_http_2() {
    for (file, asked, front) in [
        (relayed(""), "HTTP/1.1 over TLS", json!({"tls": true})),
        (
            with_h2(&relayed("h2,http/1.1")),
            "HTTP/2 over TLS",
            json!({"tls": true, "protocol": "h2"}),
        ),
        (
            PLAIN.to_owned(),
            "HTTP/2 without TLS",
            json!({"protocol": "h2"}),
        ),
    ] {
        let bench = Bench::new();
        let path = bench.write("own.toml", &file);
        let verified = bench.run(&["verify", "smoke", "--path", &path]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        run_short(&bench, &path);
        let trials = bench.trials();
        let mut generators: Vec<&Value> = Vec::new();
        for trial in &trials {
            let load = &trial["load"];
            let has_front = trial["path"] == "own";
            let of = |name: &str| match has_front {
                true => front[name].clone(),
                false => Value::Null,
            };
            assert_eq!(load["tls"], of("tls"), "{trial}");
            assert_eq!(load["protocol"], of("protocol"), "{trial}");
            assert_eq!(load["digests_checked"], load["good"], "{trial}");
            generators.push(&load["generator"]);
        }
        // The reference has the same client.
        assert!(
            generators.iter().all(|it| *it == generators[0]),
            "{trials:?}"
        );
        let run = bench.run_dir();
        let manifest = fs::read_to_string(run.join("manifest.json")).expect("written");
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        let mut paths = manifest["paths"].as_array().expect("a list").iter();
        let info = paths.find(|it| it["name"] == "own").expect("ours");
        assert_eq!(info["front"], front);
        for report in ["REPORT.md", "report.html"] {
            let report = fs::read_to_string(run.join(report)).expect("written");
            let expected = format!("asked by {asked}: ");
            assert!(report.contains(&expected), "{asked}: {report}");
        }
        assert_no_keys(&run);
        let described = text(&bench.run(&["describe", &path]).stdout);
        let expected = format!(":{{{{port:front}}}}, asked by {asked}\n");
        assert!(described.contains(&expected), "{described}");
        bench.assert_nothing_left();
    }
}

#[test]
fn proxies_that_end_tls_answer_by_http_2() {
    let bench = Bench::new();
    for program in ["nginx", "haproxy"] {
        if installed(program).is_some() {
            let path = format!("{program}-tls");
            let verify = ["verify", "smoke", "--path", &path, "--set=protocol=h2"];
            let verified = bench.run(&verify);
            assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        }
    }
    bench.assert_nothing_left();
}

#[test]
fn rates_are_held_by_http_2() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PLAIN);
    let rate = [&short(&path)[..], &["--rate=100"]].concat();
    let result = bench.run(&rate);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let trials = bench.trials();
    let own = trials.iter().find(|trial| trial["path"] == "own");
    let load = &own.expect("a record")["load"];
    assert_eq!(load["protocol"], "h2", "{load}");
    assert!(load["open_loop"]["scheduled"].as_u64() > Some(0), "{load}");
}

#[test]
fn a_front_that_is_asked_wrongly_is_told() {
    let bench = Bench::new();
    let foreign = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let write = |name: &str, text: &str| {
        bench.write(name, text);
        let file = bench.directory.path().join(name);
        file.to_str().expect("UTF-8").to_owned()
    };
    let certificate = write("foreign.pem", &foreign.cert.pem());
    let key = write("foreign-key.pem", &foreign.signing_key.serialize_pem());
    let others = relayed("")
        .replace("{{tls:certificate}}", &certificate)
        .replace("{{tls:key}}", &key)
        .replace(
            "name = 'relay'",
            "name = 'relay'\nenv = { A = '{{tls:pem}}' }",
        );
    // It gets a certificate, and doesn't use it.
    let without = PLAIN.replace("http://", "https://").replace(
        "name = 'origin'",
        "name = 'origin'\nenv = { A = '{{tls:pem}}' }",
    );
    let old = RELAYED
        .replace("https://", "")
        .replace("'{{file:relay.py}}'", "'-m', 'http.server'")
        .replace(
            "role = 'hop'",
            "role = 'hop'\nenv = { TO = '{{port:origin}}' }",
        );
    let old = old.replace(
        ", '{{port:origin}}',\n           'ALPN', 'CERTIFICATE', 'KEY'",
        "",
    );
    for (file, expected) in [
        (
            others,
            "of another authority than the run's: have the hop use '{{tls:certificate}}'",
        ),
        (without.clone(), "the front doesn't speak TLS: "),
        (
            without.replace("protocol = 'h2'", "protocol = 'http1'"),
            "the front doesn't speak TLS: ",
        ),
        (
            with_h2(&relayed("http/1.1")),
            "by ALPN, expected 'h2'; let the hop speak HTTP/2",
        ),
        (
            with_h2(&relayed("")),
            "the front chose no protocol by ALPN, expected 'h2'",
        ),
        (
            relayed("").replace("https://", "").replace(RELAY, ALERT),
            "if the hop speaks TLS, begin 'front' with 'https://' (with 'quick', add '--tls')",
        ),
        (with_h2(&old), "no answer by HTTP/2"),
    ] {
        let file = file.replace("start-timeout-ms = 10000\n", "");
        let path = bench.write("own.toml", &format!("start-timeout-ms = 2000\n{file}"));
        let told = told_by_verify(&bench, &path);
        assert!(told.contains(expected), "'{expected}': {told}");
    }
    bench.assert_nothing_left();
}

#[test]
fn wrong_answers_are_found_by_http_2() {
    let bench = Bench::new();
    let path = format!("{PLAIN}[expect.'/small']\nstatus = 201\n");
    let path = bench.write("own.toml", &path);
    let told = told_by_verify(&bench, &path);
    assert!(told.contains("status 200 instead of 201"), "{told}");
}

#[test]
fn a_hop_may_get_certificates_without_being_asked_over_tls() {
    let bench = Bench::new();
    let checks = "exec 3< {{tls:ca}} 4< {{tls:pem}}; test \"$(stat -c %a {{tls:key}})\" = 600 &&";
    let path = PLAIN.replace(
        "command = ['",
        &format!("command = ['sh', '-c', '{checks} exec \"$0\" \"$@\"', '"),
    );
    let path = bench.write("own.toml", &path);
    let verified = bench.run(&["verify", &path, "--set=protocol=http1"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    bench.assert_nothing_left();
}

#[test]
fn mistakes_about_fronts_are_named() {
    let bench = Bench::new();
    for (from, to, expected) in [
        (
            "http://",
            "https://",
            "expected a process that gets the certificate which clients accept; write \
             '{{tls:certificate}}' and '{{tls:key}}', or '{{tls:pem}}'",
        ),
        ("http://", "h2://", "'https://HOST:PORT'"),
        (
            "protocol = 'h2'",
            "protocol = 'http2'",
            "'protocol': expected 'http1' or 'h2': 'http2' (did you mean 'h2'?)",
        ),
        (
            "'--exit-with-stdin'",
            "'{{tls:cert}}'",
            "'{{tls:cert}}': expected one of '{{tls:ca}}'",
        ),
        (
            "'--version'",
            "'{{tls:ca}}'",
            "'{{tls:ca}}': expected in a 'command'",
        ),
        (
            "http://127.0.0.1",
            "http://localhost",
            "HOST is an IP address",
        ),
    ] {
        assert!(PLAIN.contains(from), "{from}");
        let path = bench.write("wrong.toml", &PLAIN.replace(from, to));
        let refused = bench.run(&["describe", &path]);
        let told = text(&refused.stderr);
        assert!(
            !refused.status.success() && told.contains(expected),
            "{expected}: {told}"
        );
    }
}

#[test]
fn paths_that_were_asked_differently_are_not_compared() {
    let bench = Bench::new();
    let path = bench.write("own.toml", PLAIN);
    let measure = |protocol: &str| -> String {
        let set = format!("--set=protocol={protocol}");
        let out = format!("--out={protocol}");
        let result = bench.run(&[&short(&path)[..], &[&set, &out]].concat());
        assert!(result.status.success(), "{}", text(&result.stderr));
        let said = text(&result.stdout);
        let (_, run) = said.rsplit_once("run directory: ").expect("named");
        run.trim().to_owned()
    };
    let [base, head] = ["http1", "h2"].map(measure);
    let expected = "protocol at the front of path 'own' 'HTTP/1.1' and 'HTTP/2 without TLS'";
    assert_refused(&bench.run(&["compare", &base, &head]), 3, expected);
    // The client of the reference is another, too.
    assert_refused(
        &bench.run(&["compare", &base, &head]),
        3,
        "load generator of",
    );
    assert_eq!(bench.run(&["compare", &head, &head]).status.code(), Some(0));
    bench.write("plain.toml", &PLAIN.replace("'h2'", "'http1'"));
    let files = ["--a", "./own.toml", "--b", "./plain.toml"];
    let refused = bench.run(&[&["ab", "quick-look"], &files[..]].concat());
    let expected = "'./own.toml' is asked by HTTP/2 without TLS and './plain.toml' by HTTP/1.1";
    assert_refused(&refused, 2, expected);
    let to = ["--path", &path, "--target=http://127.0.0.1:1"];
    let refused = bench.run(&[&["export", "k6", "smoke"], &to[..]].concat());
    assert_refused(
        &refused,
        2,
        "expected a path that is asked by HTTP/1.1 without TLS",
    );
}
