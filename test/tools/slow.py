"""A crowd of clients that are slow on purpose, in a process of its own: each kind holds a connection as long as it is let.

    python3 slow.py HOST PORT CERT KEY CA COUNT KIND…

Prints "ready" once all of them are open, goes slow on a line from standard input, prints "slow" when all do, and one JSON
object when all have been cut or `GIVE_UP_S` have passed: for each kind how many were cut, and the shortest and longest
time it took.
"""
import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from client import tls_context
from daemon import Identity

KINDS = ("silent", "head", "body", "deaf")
BEAT_S, PARTS = 1.0, 100  # each connection has its beat, each part of the crowd at another time
GIVE_UP_S = 120
ASK = b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n" * 32
HEAD = b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: "
BODY = b"POST /api/v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
OPENING = {"silent": b"", "head": HEAD, "body": BODY, "deaf": ASK}


class Slow:
    """One connection. silent: not even a handshake. head, body: a byte a beat. deaf: asks, and never reads."""

    def __init__(self, kind):
        self.kind, self.began, self.cut_after = kind, None, None
        self.socket = None

    def connect(self, address, context):
        raw = socket.socket()
        if self.kind == "deaf":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(address)
        self.socket = raw if self.kind == "silent" else context.wrap_socket(raw, server_hostname=address[0])
        self.socket.setblocking(False)

    def send(self, data):
        try:
            self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.cut()

    def begin(self):
        self.began = time.monotonic()
        if self.kind != "silent":
            self.send(OPENING[self.kind])

    def beat(self):
        if self.kind in ("head", "body"):
            self.send(b"a")
        elif self.kind == "deaf":
            self.send(ASK)

    def look(self):
        """Something came: bytes of TLS that nobody waits for, or the end."""
        if self.kind == "deaf":
            return
        try:
            if not self.socket.recv(65536):
                self.cut()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.cut()

    def cut(self):
        if self.cut_after is None:
            self.cut_after = time.monotonic() - self.began


def watch(crowd):
    """Beats and looks until all are cut."""
    selector = selectors.EpollSelector()
    for s in crowd:
        if s.kind != "deaf":
            selector.register(s.socket, selectors.EVENT_READ, s)
    give_up, slow = time.monotonic() + GIVE_UP_S, [crowd[i::PARTS] for i in range(PARTS)]
    part, next_beat = 0, time.monotonic() + BEAT_S
    while any(slow) and time.monotonic() < give_up:
        for ready, _ in selector.select(max(0, next_beat - time.monotonic())):
            ready.data.look()
            if ready.data.cut_after is not None:
                selector.unregister(ready.data.socket)
        if time.monotonic() >= next_beat:
            slow[part] = [s for s in slow[part] if s.cut_after is None]
            for s in slow[part]:
                s.beat()
            part, next_beat = (part + 1) % PARTS, next_beat + BEAT_S / PARTS


def summary(crowd):
    result = {}
    for kind in sorted({s.kind for s in crowd}):
        times = sorted(s.cut_after for s in crowd if s.kind == kind and s.cut_after is not None)
        result[kind] = {"count": sum(s.kind == kind for s in crowd), "cut": len(times),
                        "first_s": round(times[0], 2) if times else None,
                        "last_s": round(times[-1], 2) if times else None}
    return result


def main(host, port, cert, key, ca, count, *kinds):
    os.nice(10)  # elsewhere in real life: what all these handshakes cost their side is not the server's doing
    address = (host, int(port))
    context = tls_context(Identity("slow", Path(cert), Path(key), Path(ca)))
    crowd = [Slow(kind) for kind in kinds for _ in range(int(count))]
    for s in crowd:
        if s.kind != "silent":
            s.connect(address, context)
    print("ready", flush=True)
    sys.stdin.readline()
    for s in crowd:
        if s.kind == "silent":
            s.connect(address, context)
        s.begin()
    print("slow", flush=True)
    watch(crowd)
    print(json.dumps(summary(crowd)), flush=True)


class Crowd:
    """The test's side: opens them all; begin(), and began() when all are slow; result() when all are cut."""

    def __init__(self, address, identity, count, kinds=KINDS):
        self.process = subprocess.Popen(
            [sys.executable, __file__, address[0], str(address[1]), identity.cert, identity.key, identity.ca,
             str(count), *kinds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def begin(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def began(self):
        assert self.process.stdout.readline() == "slow\n"

    def result(self):
        out, _ = self.process.communicate(timeout=GIVE_UP_S + 60)
        assert self.process.returncode == 0
        return json.loads(out)

    def close(self):
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
