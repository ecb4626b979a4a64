#!/usr/bin/env python3
"""Compares what WAFs refuse: scripts/waf-detection.py FOLDER [FORTUNES]

FOLDER has 'attack.jsonl', 'benign.jsonl' and 'crs_negative.jsonl', a request on each line. FORTUNES,
if given, is a folder of texts between lines of '%', of which each becomes an argument. All requests
go over loopback, as they are, to the edge node and to nginx with ModSecurity and the Core Rule Set,
at paranoia 1 and 2, before an origin that answers 200 to everything. Prints a table of how many are
answered with 403, in percent.

Needs nginx, Debian's packages libnginx-mod-http-modsecurity and modsecurity-crs, and
'cargo build --release -p edge-node'.
"""
import base64
import collections
import concurrent.futures
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONCURRENCY = 4

RULES = """
SecRuleEngine On
SecRequestBodyAccess On
SecRequestBodyLimit 13107200
SecRequestBodyNoFilesLimit 131072
SecRequestBodyLimitAction Reject
SecResponseBodyAccess Off
SecAuditEngine Off
SecRule REQUEST_HEADERS:Content-Type "^(?:application|text)/(?:soap\\+|)xml" \
"id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "^application/json" \
"id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecAction "id:900000,phase:1,nolog,pass,t:none,setvar:tx.paranoia_level={paranoia}"
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
"""

NGINX = """
load_module /usr/lib/nginx/modules/ngx_http_modsecurity_module.so;
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_processes 2;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    large_client_header_buffers 8 64k;
    server {{ listen 127.0.0.1:{origin}; client_max_body_size 0; location / {{ return 200; }} }}
    server {{
        listen 127.0.0.1:{front};
        client_max_body_size 0;
        modsecurity on;
        modsecurity_rules_file {folder}/rules.conf;
        location / {{ proxy_pass http://127.0.0.1:{origin}; }}
    }}
}}
"""

EDGE = """
[[upstream]]
name = "origin"
targets = ["127.0.0.1:{origin}"]

[waf]
paranoia = {paranoia}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"'{process.args[0]}' ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit(f"'{process.args[0]}' doesn't listen")


def wire(request):
    """The request's bytes, as its source writes it, on a connection of its own."""
    body = (request["body"] or "").encode()
    if "body_base64" in request:
        body = base64.b64decode(request["body_base64"])
    fields = [(name, value) for name, value in request["headers"] if name.lower() != "connection"]
    names = {name.lower() for name, _ in fields}
    if body and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    version = request.get("version", "HTTP/1.1")
    lines = [f"{request['method']} {request['target']} {version}"]
    lines += [f"{name}: {value}" for name, value in fields] + ["Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def status(port, request):
    """The status of the answer, 0 if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(request)
            received = b""
            while len(received) < 12:
                more = client.recv(4096)
                if not more:
                    return 0
                received += more
            return int(received[9:12])
    except (OSError, ValueError):
        return 0


def samples(folder, fortunes):
    """Pairs of a row of the table and a request."""
    for name in ("attack", "benign", "crs_negative"):
        for line in (folder / f"{name}.jsonl").open():
            case = json.loads(line)
            kind = f"{case['source']}, all" if name == "attack" else f"not attacks: {name}"
            yield kind, wire(case["request"])
            if name == "attack":
                yield f"{case['source']}, {case['class']}", wire(case["request"])
    for file in sorted(fortunes.iterdir()) if fortunes else ():
        if file.is_file() and not file.suffix:
            for text in file.read_text(errors="replace").split("\n%\n"):
                request = {
                    "method": "GET",
                    "target": "/?text=" + urllib.parse.quote_plus(text)[:6000],
                    "headers": [
                        ["Host", "localhost"],
                        ["User-Agent", "Mozilla/5.0"],
                        ["Accept", "*/*"],
                    ],
                    "body": None,
                }
                yield "not attacks: fortunes", wire(request)


def rates(port, cases):
    """The share of each row's requests that is refused with 403, in percent."""
    distinct = list(dict.fromkeys(request for _, request in cases))
    with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as pool:
        answers = dict(zip(distinct, pool.map(lambda request: status(port, request), distinct)))
    refused, total = collections.Counter(), collections.Counter()
    for kind, request in cases:
        total[kind] += 1
        refused[kind] += answers[request] == 403
    unanswered = sum(1 for answer in answers.values() if answer == 0)
    print(f"port {port}: {len(distinct)} requests, {unanswered} without an answer", file=sys.stderr)
    return {kind: 100 * refused[kind] / total[kind] for kind in total}, total


def measure(folder, cases, paranoia):
    ports = {"folder": folder, "origin": free_port(), "front": free_port(), "paranoia": paranoia}
    edge_port = free_port()
    (folder / "rules.conf").write_text(RULES.format(**ports))
    (folder / "nginx.conf").write_text(NGINX.format(**ports))
    (folder / "edge.toml").write_text(EDGE.format(**ports))
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") or sys.exit("nginx is not installed")
    processes = []
    try:
        for command, port in (
            ([nginx, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"], ports["front"]),
            (
                [ROOT / "target/release/edge-node", "serve", f"--config={folder}/edge.toml",
                 f"--listen=127.0.0.1:{edge_port}", "--log=error"],
                edge_port,
            ),
        ):
            processes.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL))
            wait_for(port, processes[-1])
        return rates(edge_port, cases), rates(ports["front"], cases)
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    fortunes = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else None
    cases = list(samples(pathlib.Path(sys.argv[1]), fortunes))
    columns = {}
    for paranoia in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            for name, (percent, total) in zip(
                ("edge node", "ModSecurity"), measure(pathlib.Path(folder), cases, paranoia)
            ):
                columns[f"{name}, {paranoia}"] = percent
    names = ["edge node, 1", "ModSecurity, 1", "edge node, 2", "ModSecurity, 2"]
    print("| requests | how many | " + " | ".join(names) + " |")
    print("|---|---:|" + "---:|" * len(names))
    for kind in sorted(total, key=lambda kind: (kind.startswith("not"), ", all" not in kind, kind)):
        values = (f"{columns[name][kind]:.1f}" for name in names)
        print(f"| {kind} | {total[kind]} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
