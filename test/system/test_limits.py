"""Every limit and every deadline of the ingest listener: it holds, it is counted, and others are not harmed."""
import json
import shutil
import socket
import ssl
import time
import urllib.parse

import h2.errors
import h2.events
import h2.settings
import pytest

from client import NUMBER, Client, RawTLS, curl, tls_context
from daemon import Sealpost, Site
from http2 import Http2
from test_http import BODY, CHUNKED, FIRST_LINE, HOST, LENGTH, TYPE, answers_of, post
from test_ingest import check_problem
from test_metrics import scrape, value
from waiting import eventually

HEAD_BYTES = 16384
HEADER_COUNT = 64
TARGET_BYTES = 4096
MESSAGE_BYTES = 64 * 1024
BATCH_BYTES = 4 * 1024 * 1024
SHORT = "500ms"
BEAT_S = 0.05  # from one byte of a dripping connection to the next
BATCH = "/api/v1/messages/batch"


@pytest.fixture(params=[Client, Http2], ids=["http1", "http2"])
def protocol(request):
    return request.param


def counted(site, metric, **labels):
    """The value of one series of the ingest listener."""
    wanted = [f'{k}="{v}"' for k, v in {"listener": "ingest", **labels}.items()]
    for line in scrape(site.daemon).splitlines():
        if line.startswith(metric + "{") and all(w in line for w in wanted):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


class Rejections:
    """How much more often something was refused for that reason than when this was made."""

    def __init__(self, site, reason):
        self.site, self.reason = site, reason
        self.before = self.now()

    def now(self):
        return counted(self.site, "sealpost_http_rejected_total", reason=self.reason)

    def expect(self, more):
        eventually(lambda: self.now() - self.before >= more, f"{more} more counted as {self.reason}")
        assert self.now() - self.before == more


def still_works(site):
    with site.client() as client:
        assert client.post().status == 202


# --- sizes ---

def get_with_head(client, count, value_bytes, path="/livez"):
    return client.request("GET", path, headers={f"X-{i}": "v" * value_bytes for i in range(count)})


@pytest.mark.parametrize("bytes_,status", [(HEAD_BYTES - 1000, 200), (HEAD_BYTES, 431), (3 * HEAD_BYTES, 431)])
def test_size_of_the_head(shared, protocol, bytes_, status):
    rejections = Rejections(shared, "head_too_large")
    with protocol(shared.daemon.address(), shared.identity) as client:
        answer = get_with_head(client, 1, bytes_)
        assert answer.status == status
        if status == 431:
            assert "head_max" in check_problem(answer, 431, "headers_too_large")["detail"]
    rejections.expect(int(status == 431))


@pytest.mark.parametrize("count,status", [(HEADER_COUNT - 8, 200), (HEADER_COUNT + 1, 431)])
def test_number_of_headers(shared, protocol, count, status):
    rejections = Rejections(shared, "head_too_large")
    with protocol(shared.daemon.address(), shared.identity) as client:
        answer = get_with_head(client, count, 1)
        assert answer.status == status
        if status == 431:
            assert "headers_max" in check_problem(answer, 431, "headers_too_large")["detail"]
    rejections.expect(int(status == 431))


@pytest.mark.parametrize("length,status", [(TARGET_BYTES, 404), (TARGET_BYTES + 1, 431)])
def test_length_of_the_target(shared, protocol, length, status):
    rejections = Rejections(shared, "head_too_large")
    with protocol(shared.daemon.address(), shared.identity) as client:
        answer = client.get("/" + "a" * (length - 1))
        assert answer.status == status
        if status == 431:
            assert "target_max" in check_problem(answer, 431, "headers_too_large")["detail"]
    rejections.expect(int(status == 431))


BODIES = {"message": ("/api/v1/messages", MESSAGE_BYTES), "batch": (BATCH, BATCH_BYTES), "none": ("/livez", 0)}


@pytest.mark.parametrize("path,ceiling", BODIES.values(), ids=BODIES)
def test_size_of_the_body(shared, protocol, path, ceiling):
    rejections = Rejections(shared, "body_too_large")
    method = "POST" if ceiling else "GET"
    with protocol(shared.daemon.address(), shared.identity) as client:
        answer = client.request(method, path, b" " * (ceiling + 1), {"Content-Type": "application/json"})
        detail = check_problem(answer, 413, "payload_too_large")["detail"]
        assert f" {ceiling} bytes" in detail if ceiling else "no body" in detail
    rejections.expect(1)


@pytest.mark.parametrize("path,ceiling", BODIES.values(), ids=BODIES)
def test_size_of_a_body_without_a_length(shared, protocol, path, ceiling):
    """In chunks, or as HTTP/2 frames: the ceiling is met on the way."""
    rejections = Rejections(shared, "body_too_large")
    method, too_much = "POST" if ceiling else "GET", b" " * (ceiling + 1)
    with protocol(shared.daemon.address(), shared.identity) as client:
        if protocol is Http2:
            answer = client.answer(client.open_stream(method, path, end=False), too_much)
        else:
            pieces = (too_much[i:i + 16384] for i in range(0, len(too_much), 16384))
            answer = client.request(method, path, pieces)
        check_problem(answer, 413, "payload_too_large")
    rejections.expect(1)


def test_a_body_that_is_shorter_than_it_was_said_to_be(shared):
    with Http2(shared.daemon.address(), shared.identity) as client:
        stream = client.open_stream("POST", "/api/v1/messages", {**json_type(), "content-length": "1000"}, end=False)
        client.h2.send_data(stream, BODY, end_stream=True)
        client.flush()
        with pytest.raises(ConnectionResetError):
            client.answer(stream)
    still_works(shared)


def json_type():
    return {"content-type": "application/json"}


# --- deadlines ---

@pytest.fixture(scope="module")
def hasty(tmp_path_factory, template):
    """hasty(name): a daemon with that deadline short, and no other: on a busy machine a handshake alone may take longer."""
    sites = {}

    def site(name):
        if name not in sites:
            directory = tmp_path_factory.mktemp("hasty") / "daemon"
            shutil.copytree(template, directory)
            sites[name] = Site(Sealpost(directory, settings={f"{name}_timeout": SHORT}).start())
        return sites[name]

    yield site
    for s in sites.values():
        s.daemon.close()


def test_handshake_deadline(hasty):
    site = hasty("handshake")

    def timeouts():
        return counted(site, "sealpost_tls_handshakes_total", outcome="timeout")
    before = timeouts()
    with socket.create_connection(site.daemon.address(), 60) as silent:
        assert silent.recv(1) == b""
    eventually(lambda: timeouts() > before, "it is counted")
    assert timeouts() == before + 1


def client_hello(site):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        tls_context(site.identity).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def test_half_a_handshake(hasty):
    """The deadline is about the whole of it."""
    site = hasty("handshake")
    hello = client_hello(site)
    with socket.create_connection(site.daemon.address(), 60) as dripping:
        dripping.settimeout(BEAT_S)
        assert drips_until_cut(lambda i: dripping.sendall(hello[i:i + 1]), dripping)

    def lets_in():
        try:
            still_works(site)
        except OSError:
            return False  # the deadline is short for a good one too
        return True
    eventually(lets_in, "one that is whole succeeds")


def drips_until_cut(send, sock):
    """send(i) again and again; true once the peer has closed. The socket has a short timeout, which is the beat."""
    deadline, i = time.monotonic() + 60, 0
    while time.monotonic() < deadline:
        try:
            send(i)
            if not sock.recv(65536):
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
        i += 1
    return False


def test_head_deadline(hasty):
    site = hasty("head")
    rejections = Rejections(site, "head_timeout")
    with RawTLS(site.daemon.address(), site.identity) as silent:
        silent.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        assert silent.read_all() == b""
    with RawTLS(site.daemon.address(), site.identity, beat=BEAT_S) as dripping:
        dripping.send(b"GET /livez HTTP/1.1\r\n")
        assert drips_until_cut(lambda i: dripping.send(b"X-%d: b\r\n" % i), dripping.socket)
    rejections.expect(2)


def test_head_deadline_http2(hasty):
    """A header block whose end never comes."""
    site = hasty("head")
    rejections = Rejections(site, "head_timeout")
    with Http2(site.daemon.address(), site.identity) as client:
        assert client.get("/livez").status == 200, "SETTINGS are exchanged"
        # HEADERS of stream 3 without END_HEADERS: one byte, :method GET by index (RFC 7541 appendix A)
        client.socket.sendall(bytes.fromhex("000001 01 00 00000003 82"))
        assert client.socket.recv(65536) == b""
    rejections.expect(1)


def test_body_deadline(hasty):
    site = hasty("body")
    rejections = Rejections(site, "body_timeout")
    with RawTLS(site.daemon.address(), site.identity) as silent:
        silent.send(post(LENGTH, body=BODY[:-1]))
        assert 202 not in answers_of(silent.read_all())
    for head, beat in ((b"Content-Length: 60000\r\n", b" "), (CHUNKED, b"1\r\n \r\n")):
        with RawTLS(site.daemon.address(), site.identity, beat=BEAT_S) as dripping:
            dripping.send(FIRST_LINE + HOST + TYPE + head + b"\r\n")
            assert drips_until_cut(lambda i: dripping.send(beat), dripping.socket)
    rejections.expect(3)


def test_body_deadline_http2(hasty):
    """That stream alone is reset; the others go on."""
    site = hasty("body")
    rejections = Rejections(site, "body_timeout")
    with Http2(site.daemon.address(), site.identity) as client:
        late = client.open_stream("POST", "/api/v1/messages", json_type(), end=False)
        client.h2.send_data(late, BODY[:-1])
        client.flush()
        with pytest.raises(ConnectionResetError):
            client.answer(late)
        assert [a.status for a in client.post_at_once(1, BODY)] == [202]  # in one write: its own body is in time
    rejections.expect(1)


def test_idle_deadline(hasty):
    site = hasty("idle")
    with RawTLS(site.daemon.address(), site.identity) as fresh:
        assert fresh.read_all() == b""

    def ask_and_rest():
        with RawTLS(site.daemon.address(), site.identity) as used:
            used.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            return answers_of(used.read_all())  # none: the request itself came too late
    assert eventually(ask_and_rest, "asked in time") == [200]


@pytest.mark.parametrize("pings", [False, True], ids=["silent", "pinging"])
def test_idle_deadline_http2(hasty, pings):
    site = hasty("idle")
    with Http2(site.daemon.address(), site.identity) as client:
        if not pings:
            client.wait_closed()
            return
        client.socket.settimeout(BEAT_S)

        def ping(i):
            client.h2.ping(i.to_bytes(8, "big"))
            client.flush()
        assert drips_until_cut(ping, client.socket)


class Deaf:
    """A connection with a small window that asks for more and more and reads nothing."""

    REQUEST = b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n"

    def __init__(self, site):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(site.daemon.address())
        self.socket = tls_context(site.identity).wrap_socket(raw, server_hostname="127.0.0.1")
        self.socket.setblocking(False)

    def ask(self):
        """Until nothing more is taken, or it is cut; false then."""
        try:
            while True:
                self.socket.send(self.REQUEST * 32)
        except ssl.SSLWantWriteError:
            return True
        except OSError:
            return False


def test_write_deadline(hasty):
    site = hasty("write")
    rejections = Rejections(site, "write_timeout")
    deaf = Deaf(site)
    eventually(lambda: not deaf.ask(), "the connection is cut")
    deaf.socket.close()
    rejections.expect(1)


def test_write_deadline_http2(hasty):
    """A peer that never opens its window: its stream is reset, not the connection."""
    site = hasty("write")
    rejections = Rejections(site, "write_timeout")
    with Http2(site.daemon.address(), site.identity) as client:
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.flush()
        stream = client.open_stream("GET", "/openapi.yaml")
        events = []
        while not any(isinstance(e, h2.events.StreamReset) and e.stream_id == stream for e in events):
            events.append(client.next_event())
            assert events[-1], "the connection stays"
    rejections.expect(1)


# --- how many at once ---

@pytest.fixture
def start(make_daemon):
    def start(**settings):
        return Site(make_daemon(settings={k: str(v) for k, v in settings.items()}).start())
    return start


def is_refused(site, source="127.0.0.1"):
    """Closed before a word of TLS was said; what is not refused is greeted back."""
    with socket.create_connection(site.daemon.address(), 60, (source, 0)) as s:
        try:
            s.sendall(client_hello(site))
            return s.recv(1) == b""
        except ConnectionError:
            return True


def open_connections(site):
    return counted(site, "sealpost_http_connections")


def test_connections_in_total(start):
    site = start(connections_max=3)
    clients = [site.client() for _ in range(3)]
    assert [c.get("/livez").status for c in clients] == [200] * 3
    rejections = Rejections(site, "connections")
    assert is_refused(site) and is_refused(site, "127.0.0.2")
    rejections.expect(2)
    assert [c.post().status for c in clients] == [202] * 3, "those that are open go on"
    clients[0].close()
    eventually(lambda: open_connections(site) < 3, "the place is free")
    still_works(site)
    for c in clients:
        c.close()


def test_connections_from_one_address(start):
    site = start(connections_per_address=2)
    clients = [site.client() for _ in range(2)]
    assert [c.get("/livez").status for c in clients] == [200] * 2
    rejections = Rejections(site, "connections_per_address")
    assert is_refused(site)
    assert not is_refused(site, "127.0.0.2")
    rejections.expect(1)
    clients[0].close()
    eventually(lambda: open_connections(site) < 2, "the place is free")
    still_works(site)
    for c in clients:
        c.close()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_connections_of_one_client(start, version):
    """One too many is told so, whatever it asks for."""
    site = start(connections_per_client=2)
    with site.client() as one, site.client() as two, site.client(site.new_identity()) as stranger:
        assert [c.get("/livez").status for c in (one, two, stranger)] == [200] * 3
        rejections = Rejections(site, "connections_per_client")
        answer = curl(site.daemon.ready["ingest"] + "/livez", site.identity, version)
        problem = check_problem(answer, 429, "too_many_requests")
        assert "connections" in problem["detail"] and int(answer.header("retry-after")) >= 1
        assert answer.header("connection") == ("close" if version == "--http1.1" else None)
        rejections.expect(1)
        assert [c.post().status for c in (one, two, stranger)] == [202] * 3
    eventually(lambda: open_connections(site) == 0, "the places are free")
    still_works(site)


def test_the_last_answer_comes_before_the_end_of_the_connection(start):
    """HTTP/2: GOAWAY follows the whole answer. Some clients give up at once what they are still reading."""
    site = start(connections_per_client=1)
    with site.client() as first:
        assert first.get("/livez").status == 200
        with Http2(site.daemon.address(), site.identity) as second:
            stream = second.open_stream("GET", "/livez")
            names = [type(e).__name__ for e in second.wait_closed() if getattr(e, "stream_id", stream) == stream]
    said = [n for n in names if n in ("ResponseReceived", "DataReceived", "StreamEnded", "ConnectionTerminated")]
    assert said == ["ResponseReceived", "DataReceived", "StreamEnded", "ConnectionTerminated"]


def test_streams(start):
    site = start(streams_max=2)
    rejections = Rejections(site, "streams")
    with Http2(site.daemon.address(), site.identity) as client:
        # All in one write, before the server has said how many there may be.
        held = [client.open_stream("POST", "/api/v1/messages", json_type(), end=False) for _ in range(3)]
        event = client.next_event()
        while not isinstance(event, h2.events.StreamReset):
            event = client.next_event()
        assert (event.stream_id, event.error_code) == (held[2], h2.errors.ErrorCodes.REFUSED_STREAM)
        assert client.answer(held[0], BODY).status == 202
    rejections.expect(1)


def test_the_largest_batch_fits_on_any_number_of_threads(start, protocol):
    """The least memory, divided among the most threads, is enough for one that is alone."""
    site = start(io_threads=64, body_memory="16MiB")
    body = json.dumps([json.loads(BODY)] * 1000).encode().ljust(BATCH_BYTES)
    rejections = Rejections(site, "body_room")
    with protocol(site.daemon.address(), site.identity) as client:
        for _ in range(3):
            assert client.request("POST", BATCH, body, {"Content-Type": "application/json"}).status == 202
    rejections.expect(0)


REFUSED_BATCH = json.dumps([0] * 1000).encode()


def items_refused(site):
    return value(scrape(site.daemon), "sealpost_messages_rejected_total")


def test_pipelined_answers_that_nobody_reads(start):
    """A small request may have a large answer: those behind it are not taken before it is read."""
    site, count = start(io_threads=1), 20
    head = (LENGTH.replace(b"%d" % len(BODY), b"%d" % len(REFUSED_BATCH)), )
    line = f"POST {BATCH} HTTP/1.1\r\n".encode()
    with RawTLS(site.daemon.address(), site.identity) as deaf:
        deaf.send(post(*head, body=REFUSED_BATCH, line=line) * (count - 1)
                  + post(*head, b"Connection: close\r\n", body=REFUSED_BATCH, line=line))
        eventually(lambda: items_refused(site), "the first is answered")
        still_works(site)
        assert items_refused(site) <= 2000
        assert answers_of(deaf.read_all()) == [400] * count


def test_streams_whose_answers_nobody_reads(start):
    """As many as one connection is given; those past it are asked to come again."""
    site = start(drain_timeout="500ms")  # which nobody reads either
    rejections = Rejections(site, "answer_room")
    with Http2(site.daemon.address(), site.identity) as deaf:
        deaf.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        statuses = set()
        for _ in range(100):
            stream = deaf.open_stream("POST", BATCH, json_type(), end=False)
            deaf.h2.send_data(stream, REFUSED_BATCH, end_stream=True)
            deaf.flush()
            while not isinstance(event := deaf.next_event(), h2.events.ResponseReceived):
                pass
            statuses.add(dict(event.headers)[":status"])
        assert statuses == {"400", "503"}
        still_works(site)
        rejections.expect(100 - items_refused(site) // 1000)


def test_requests_in_flight(start, protocol):
    """Many at once where two may be: some are answered 503, at once and cheaply, and nothing else happens."""
    site, count = start(requests_in_flight=1, io_threads=1), 20
    rejections = Rejections(site, "in_flight")
    if protocol is Http2:
        with Http2(site.daemon.address(), site.identity) as client:
            statuses = [a.status for a in client.post_at_once(count, BODY)]
    else:
        with RawTLS(site.daemon.address(), site.identity) as raw:
            raw.send(post(LENGTH) * (count - 1) + post(LENGTH, b"Connection: close\r\n"))
            statuses = answers_of(raw.read_all())
    assert len(statuses) == count and set(statuses) == {202, 503}
    rejections.expect(statuses.count(503))
    eventually(lambda: len(site.daemon.delivered()) == statuses.count(202), "those with 202, and no others")
    still_works(site)


def metrics_are_refused(site):
    try:
        scrape(site.daemon)
    except OSError:
        return True
    return False


def test_limits_can_be_changed_while_it_runs(start):
    site = start()
    with site.client() as client:
        assert client.get("/livez").status == 200
        assert not is_refused(site)
        site.daemon.proxy.configure({"connections_max": 1})
        eventually(lambda: is_refused(site), "the new limit holds")
        assert client.post().status == 202
    # The new limit is the metrics listener's too: one at a time.
    metrics = urllib.parse.urlsplit(site.daemon.ready["metrics"])
    with socket.create_connection((metrics.hostname, metrics.port)):
        eventually(lambda: metrics_are_refused(site), "the new limit holds there")


# --- what is answered has limits too ---

def test_pages_of_the_largest_messages(site):
    """A page is a matter of rows, not of what is in them."""
    largest = {"sender_number": NUMBER, "message_body": "\U0001F680" * 1000, "metadata": {"k": "v" * 4000}}
    with site.client() as client:
        for _ in range(6):
            answer = client.request("POST", BATCH, json.dumps([largest] * 100, ensure_ascii=False).encode(), json_type())
            assert answer.status == 202
    eventually(lambda: len(site.daemon.delivered()) == 600, "all are delivered and listed")
