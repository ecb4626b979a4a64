//! Goal: a configuration takes the place of another as a whole, or not at all.
//! Method: the real program, asked while it reads one configuration after another.

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use support::{
    Node, answers, ask, field,
    processes::{bin, command, output, text},
    split, status, to,
};

/// A configuration whose two routes lead to the same upstream of the two.
fn config(number: usize, upstreams: &str) -> String {
    let upstream = ["even", "odd"][number % 2];
    format!(
        "generation-header = true\n{upstreams}\
         [[route]]\nname = 'a'\nkind = 'exact'\npath = '/a'\nupstream = '{upstream}'\n\
         [[route]]\nname = 'rest'\nkind = 'regex'\npath = '^/b'\nupstream = '{upstream}'\n"
    )
}

#[test]
fn no_request_is_served_by_half_a_configuration() {
    let even = answers("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\neven");
    let odd = answers("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nodd");
    let upstreams = to("even", even.address) + &to("odd", odd.address);
    // The first generation is 1.
    let node = Node::start(&config(1, &upstreams));
    let (address, is_over) = (node.address, AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = ["/a", "/b"].map(|target| {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut asked = 0;
                while !is_over.load(SeqCst) {
                    let request =
                        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                    let answer = ask(address, request.as_bytes());
                    let (head, body) = split(&answer);
                    let generation = field(&head, "x-generation").parse::<usize>();
                    let expected = ["even", "odd"][generation.expect("a number") % 2];
                    assert_eq!(text(&body), expected, "{head}");
                    asked += 1;
                }
                asked
            })
        });
        for number in 2..40 {
            node.reload(&config(number, &upstreams));
        }
        is_over.store(true, SeqCst);
        for asking in asking {
            assert!(asking.join().expect("no panic") > 0);
        }
    });
    assert_eq!(node.status("generation"), 39);
    node.stop();
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let origin = answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let good = to("app", origin.address);
    let node = Node::start(&good);
    node.reload(&format!(
        "{good}[[route]]\nname = 'a'\nkind = 'regex'\npath = '('\n"
    ));
    assert_eq!(status(&node.get("/any", "")), 200);
    assert_eq!(
        (
            node.status("generation"),
            node.status("edge_reloads_refused")
        ),
        (1, 1)
    );
    let logged = node.stop();
    assert!(
        logged.contains("stays as it was") && logged.contains("edge.toml:7:8"),
        "{logged}"
    );
}

#[test]
fn mistakes_are_named_with_their_line() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("edge.toml");
    let upstream = "[[upstream]]\nname = 'a'\ntargets = ['127.0.0.1:1']\n";
    std::fs::write(directory.path().join("own.toml"), "[[rule]]\nid = 1\n").expect("writable");
    for (config, said) in [
        ("", "edge.toml: there is no [[upstream]]"),
        (
            "[[upstream]]\nnam = 'a'\n",
            "edge.toml:2:1: 'upstream': unknown field `nam`",
        ),
        (
            &format!("{upstream}{upstream}"),
            "edge.toml:5:8: upstream 'a': there are two",
        ),
        (
            "[[upstream]]\nname = 'a'\ntargets = ['x y']\n",
            "edge.toml:3:12: upstream 'a': 'x y': expected HOST:PORT",
        ),
        (
            &format!("{upstream}\n[waf]\nparanoia = 9\n"),
            "edge.toml:6:12: 'waf': paranoia '9'",
        ),
        (
            &format!("{upstream}\n[waf]\nrules = ['own.toml']\n"),
            "edge.toml:6:10: 'waf': own.toml:2:",
        ),
        (
            &format!("{upstream}\n[waf]\nrules = ['gone.toml']\n"),
            "edge.toml:6:10: 'waf': could not read '",
        ),
        (
            &format!("{upstream}\n[[waf.exclude]]\nrule = 'nope'\n"),
            "edge.toml:5:1: 'waf': exclusion 1 names the rule 'nope'",
        ),
        (
            &format!("{upstream}[[route]]\nname = 'r'\nkind = 'exact'\npath = 'x'\n"),
            "edge.toml:7:8: route 'r': path 'x' does not begin with '/'",
        ),
        (
            &format!("{upstream}\n[tokens]\ndirectory = 'gone'\n"),
            "edge.toml:6:13: 'tokens': could not read '",
        ),
        (
            &format!("{upstream}[[limit]]\nname = 'l'\nrequests = -5\n"),
            "edge.toml:6:12: 'limit.requests': ",
        ),
        (
            &format!("{upstream}[[limit]]\nname = 'l'\nrequests = 1\nwindow-ms = 1\n"),
            "edge.toml:7:13: limit 'l': ",
        ),
        (
            &format!("{upstream}[cluster]\nlisten = '127.0.0.1:1'\nsecret = 'short'\n"),
            "edge.toml:6:10: 'cluster': 'secret': expected 16 bytes or more",
        ),
    ] {
        std::fs::write(&file, config).expect("writable");
        let argument = format!("--config={}", file.display());
        for subcommand in ["check", "serve"] {
            let output = output(command(bin("edge-node")).args([subcommand, &argument]));
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains(said), "{config}: {told}");
        }
    }
}

#[test]
fn the_example_is_valid() {
    let output_of = |arguments: &[&str]| output(command(bin("edge-node")).args(arguments));
    let example = output_of(&["generate-config"]);
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("edge.toml");
    std::fs::write(&file, example.stdout).expect("writable");
    let checked = output_of(&["check", &format!("--config={}", file.display())]);
    let told = text(&checked.stdout);
    assert!(
        told.contains("routes: 3; limits: 1; a WAF at"),
        "{told}{}",
        text(&checked.stderr)
    );
}
