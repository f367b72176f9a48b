"""HTTP that is ambiguous or broken: 400 and close, and what follows on the connection is never answered.

Each case is sent with a second, valid request behind it; a server and a proxy in front of it that disagree about
where the first one ends would let that second request through (request smuggling, RFC 9112 section 11.2).
"""
import json
import re

import pytest

from client import RawTLS
from daemon import Site
from waiting import eventually

BODY = json.dumps({"sender_number": "+4915112345678", "message_body": "x"}).encode()
FIRST_LINE = b"POST /api/v1/messages HTTP/1.1\r\n"
HOST = b"Host: sealpost\r\n"
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
SECOND = b"GET /livez HTTP/1.1\r\nHost: sealpost\r\nX-Request-Id: smuggled\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(*headers, body=BODY, line=FIRST_LINE, host=HOST):
    return line + host + TYPE + b"".join(headers) + b"\r\n" + body


MALFORMED = {
    "length and chunked": post(LENGTH, CHUNKED, body=CHUNKS),
    "chunked and length": post(CHUNKED, LENGTH, body=CHUNKS),
    "two equal lengths": post(LENGTH, LENGTH),
    "two lengths": post(b"Content-Length: 0\r\n", LENGTH),
    "length list": post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "length with sign": post(b"Content-Length: +%d\r\n" % len(BODY)),
    "negative length": post(b"Content-Length: -1\r\n"),
    "length in hex": post(b"Content-Length: 0x10\r\n"),
    "length empty": post(b"Content-Length: \r\n"),
    "length with junk": post(b"Content-Length: %d;q\r\n" % len(BODY)),
    "length overflows": post(b"Content-Length: 18446744073709551617\r\n"),
    "space before colon": post(b"Content-Length : %d\r\n" % len(BODY)),
    "tab before colon": post(b"Content-Length\t: %d\r\n" % len(BODY)),
    "obs-fold": post(LENGTH, b"X-A: b\r\n c\r\n"),
    "folded encoding": post(LENGTH, b"Transfer-Encoding:\r\n chunked\r\n"),
    "space before first header": FIRST_LINE + b" " + HOST + TYPE + LENGTH + b"\r\n" + BODY,
    "NUL in a value": post(LENGTH, b"X-A: b\0c\r\n"),
    "NUL in a name": post(LENGTH, b"X\0A: b\r\n"),
    "CR in a value": post(LENGTH, b"X-A: b\rc\r\n"),
    "bare LF": post(LENGTH).replace(b"\r\n", b"\n"),
    "one bare LF": post(LENGTH, b"X-A: b\n"),
    "header without colon": post(LENGTH, b"nonsense\r\n"),
    "header without name": post(LENGTH, b": value\r\n"),
    "control in a name": post(LENGTH, b"X-\x01: b\r\n"),
    "no host": post(LENGTH, host=b""),
    "two hosts": post(LENGTH, host=HOST + b"Host: other\r\n"),
    "host with space": post(LENGTH, host=b"Host: a b\r\n"),
    "identity encoding": post(b"Transfer-Encoding: identity\r\n", LENGTH),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS),
    "two encoding headers": post(CHUNKED, CHUNKED, body=CHUNKS),
    "chunked not last": post(b"Transfer-Encoding: chunked, gzip\r\n", body=CHUNKS),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS),
    "xchunked": post(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS),
    "chunked with tab": post(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKS),
    "quoted chunked": post(b"Transfer-Encoding: \"chunked\"\r\n", body=CHUNKS),
    "chunked in 1.0": post(CHUNKED, body=CHUNKS, line=FIRST_LINE.replace(b"1.1", b"1.0")),
    "chunk size sign": post(CHUNKED, body=CHUNKS.replace(b"%x" % len(BODY), b"+%x" % len(BODY), 1)),
    "chunk size 0x": post(CHUNKED, body=b"0x" + CHUNKS),
    "chunk size overflow": post(CHUNKED, body=b"f" * 17 + b"\r\n" + BODY),
    "chunk size empty": post(CHUNKED, body=b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk size space": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b" \r\n", 1)),
    "chunk line bare LF": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n", 1)),
    "chunk too long": post(CHUNKED, body=b"%x\r\n%sXX\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "no method": post(LENGTH, line=b" /api/v1/messages HTTP/1.1\r\n"),
    "two spaces": post(LENGTH, line=b"POST  /api/v1/messages HTTP/1.1\r\n"),
    "tab separator": post(LENGTH, line=b"POST\t/api/v1/messages\tHTTP/1.1\r\n"),
    "trailing space": post(LENGTH, line=b"POST /api/v1/messages HTTP/1.1 \r\n"),
    "no version": post(LENGTH, line=b"POST /api/v1/messages\r\n"),
    "HTTP/0.9": b"GET /livez\r\n",
    "lower-case version": post(LENGTH, line=b"POST /api/v1/messages http/1.1\r\n"),
    "version 1.10": post(LENGTH, line=b"POST /api/v1/messages HTTP/1.10\r\n"),
    "control in target": post(LENGTH, line=b"POST /api/v1/mess\x01ages HTTP/1.1\r\n"),
    "fragment in target": post(LENGTH, line=b"POST /api/v1/messages#x HTTP/1.1\r\n"),
    "relative target": post(LENGTH, line=b"POST api/v1/messages HTTP/1.1\r\n"),
}


def answers_of(data):
    """Status codes of the answers in the stream."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", data)]


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_malformed(shared, request_bytes):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        raw.send(request_bytes + SECOND)
        data = raw.read_all()
    assert answers_of(data) in ([400], [505] if b"1.10" in request_bytes else [400])
    assert b"smuggled" not in data
    assert b"\r\nconnection: close\r\n" in data.lower()


TOO_LARGE = {
    "long target": (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {400, 414, 431}),
    "long header": (post(LENGTH, b"X-A: " + b"a" * 70000 + b"\r\n"), {431}),
    "many headers": (post(LENGTH, *[b"X-%d: a\r\n" % i for i in range(2000)]), {431}),
    "huge length": (post(b"Content-Length: 1073741824\r\n", body=b""), {413}),
}


@pytest.mark.parametrize("request_bytes,statuses", TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large_is_refused_before_it_is_read(shared, request_bytes, statuses):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        try:
            raw.send(request_bytes)
        except OSError:
            pass  # it may have closed before all was sent
        got = answers_of(raw.read_all())
    assert len(got) == 1 and set(got) <= statuses


WELL_FORMED = {
    "chunked": post(CHUNKED, body=CHUNKS),
    "two chunks": post(CHUNKED, body=b"1\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (BODY[:1], len(BODY) - 1, BODY[1:])),
    "chunk extension": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "upper-case chunked": post(b"Transfer-Encoding: CHUNKED\r\n", body=CHUNKS),
    "no space after colon": post(b"Content-Length:%d\r\n" % len(BODY)),
    "absolute target": post(LENGTH, line=b"POST https://sealpost/api/v1/messages HTTP/1.1\r\n"),
    "query": post(LENGTH, line=b"POST /api/v1/messages?a=b HTTP/1.1\r\n"),
}
CLOSING = b"GET /livez HTTP/1.1\r\nHost: sealpost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("request_bytes", WELL_FORMED.values(), ids=WELL_FORMED)
def test_well_formed(shared, request_bytes):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        raw.send(request_bytes + CLOSING)
        assert answers_of(raw.read_all()) == [202, 200]


def test_pipelined_requests_are_answered_in_order(shared):
    requests = b"".join(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Request-Id: number-%d\r\n\r\n" % i for i in range(5))
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        raw.send(requests + CLOSING)
        data = raw.read_all()
    positions = [data.find(b"number-%d" % i) for i in range(5)]
    assert positions == sorted(positions) and positions[0] > 0
    assert answers_of(data) == [200] * 6


def test_byte_by_byte(shared):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        for i in range(len(CLOSING)):
            raw.send(CLOSING[i:i + 1])
        assert answers_of(raw.read_all()) == [200]


def test_expect_100_continue(shared):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        raw.send(post(LENGTH, b"Expect: 100-continue\r\n", b"Connection: close\r\n", body=b""))
        first = raw.socket.recv(65536)
        assert first.startswith(b"HTTP/1.1 100 ")
        raw.send(BODY)
        assert answers_of(raw.read_all()) == [202]


def test_http_1_0_closes(shared):
    with RawTLS(shared.daemon.address(), shared.identity) as raw:
        raw.send(b"GET /livez HTTP/1.0\r\nHost: a\r\n\r\n")
        assert answers_of(raw.read_all()) == [200]


@pytest.mark.parametrize("cut", [5, 40, len(post(LENGTH)) - 3])
def test_a_peer_that_goes_away_in_the_middle(shared, cut):
    for _ in range(20):
        with RawTLS(shared.daemon.address(), shared.identity) as raw:
            raw.send(post(LENGTH)[:cut])
    with shared.client() as client:
        assert client.post().status == 202


def drip(raw):
    """One more header; true once the peer has answered, closed or reset."""
    try:
        raw.send(b"X-A: b\r\n")
        raw.socket.recv(65536)
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_dripping_peer_is_cut(make_daemon):
    """Deadlines are absolute: bytes that keep coming do not extend them."""
    site = Site(make_daemon(settings={"head_timeout": "500ms"}).start())
    with RawTLS(site.daemon.address(), site.identity, beat=0.05) as raw:
        raw.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        eventually(lambda: drip(raw), "the dripping connection is cut", interval=0)
