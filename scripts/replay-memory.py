#!/usr/bin/env python3
"""Shows the memory that recording and replaying takes: scripts/replay-memory.py BYTES COUNT

Records COUNT answers of BYTES bytes each, all different, replays them with four clients, and prints
the largest anonymous memory of the proxy in each case. Needs as much room below /tmp.
"""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = os.urandom(1 << 20)


def answer(client, size):
    """Answers requests for '/N' with bytes that no other N gets."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            more = client.recv(65536)
            if not more:
                return
            received += more
        head, received = received.split(b"\r\n\r\n", 1)
        number = int(re.search(rb"/(\d+)", head).group(1))
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for block in range(0, size, len(BLOCK)):
            piece = b"%012d%012d" % (number, block) + BLOCK[24:]
            client.sendall(piece[: size - block])


def upstream(size):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=answer, args=(client, size), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def get(port, number, size):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % number)
    buffer, received = bytearray(1 << 20), 0
    while length := client.recv_into(buffer):
        received += length
    assert received > size, f"/{number}: only {received} bytes"


def run(mode, store, size, count, clients, more):
    program = ROOT / "target/release/replay-proxy"
    arguments = [program, "serve", f"--mode={mode}", f"--store={store}", "--listen=127.0.0.1:0"]
    proxy = subprocess.Popen(arguments + more, stdout=subprocess.PIPE, text=True)
    port = int(proxy.stdout.readline().rsplit(":", 1)[1])
    peak, is_over = 0, threading.Event()

    def watch():
        nonlocal peak
        while not is_over.wait(0.02):
            status = pathlib.Path(f"/proc/{proxy.pid}/status").read_text()
            peak = max(peak, int(re.search(r"RssAnon:\s+(\d+)", status).group(1)))

    watching = threading.Thread(target=watch)
    watching.start()
    begin = time.monotonic()

    def ask(first):
        for number in range(first, count, clients):
            get(port, number, size)

    asking = [threading.Thread(target=ask, args=(first,)) for first in range(clients)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    seconds = time.monotonic() - begin
    is_over.set()
    watching.join()
    proxy.terminate()
    proxy.wait()
    print(f"{mode}: {count} x {size} bytes in {seconds:.1f} s, anonymous memory {peak} KiB at most")


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    size, count = (int(argument) for argument in sys.argv[1:3])
    store = pathlib.Path(tempfile.mkdtemp()) / "store"
    try:
        run("record", store, size, count, 1, [f"--upstream=127.0.0.1:{upstream(size)}"])
        run("replay", store, size, count, 4, [])
    finally:
        shutil.rmtree(store.parent)


if __name__ == "__main__":
    main()
