"""The ingest edge, row by row of the HTTP contract, each over HTTP/1.1 and over HTTP/2.

    row                                     tests
    TLS 1.3, certificate or 401, wrong ones test_a_certificate_is_required; test_identity.py, test_certs.py
    revoked while the connection is open    test_revoked_while_the_connection_is_open
    problems: 404, 405 + Allow, all others  test_unknown_path, test_wrong_method; check_problem everywhere
    POST /api/v1/messages                   test_a_message_is_accepted … test_message_size; test_ingest.py
    POST /api/v1/messages/batch             test_a_batch_is_accepted … test_batch_media_type
    GET /api/v1/messages/{id}               test_status_of_…
    GET /api/v1/health, /livez, /readyz     test_health, test_live_and_ready, test_accepting_is_paused
    GET /metrics                            test_metrics_from_…, test_public_metrics
    Idempotency-Key                         test_a_key_… … test_keys_are_bounded
    rate limits                             test_no_limit_no_headers … test_a_replay_costs_nothing
    overload: bounds, memory, disk          test_not_enough_room_on_the_disk; test_limits.py; torture/test_disk.py
    X-Request-Id, traceparent               test_request_id, test_traceparent
    openapi.yaml                            test_openapi_is_served_as_it_is; test_openapi.py; cli/openapi_test.c
"""
import json
import re
import socket
import threading
import uuid
from pathlib import Path

import pytest

from client import NUMBER, Client, curl
from daemon import Site
from http2 import Http2
from test_ingest import check_problem, message
from test_metrics import scrape, value
from waiting import eventually

pytestmark = pytest.mark.everywhere

BATCH = "/api/v1/messages/batch"
BATCH_ITEMS = 1000
BATCH_BYTES = 4 * 1024 * 1024
OPENAPI = Path(__file__).resolve().parents[2] / "src" / "proxy" / "openapi.yaml"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(params=[Client, Http2], ids=["http1", "http2"])
def protocol(request):
    return request.param


def connect(site, protocol, identity=None):
    return protocol(site.daemon.address(), identity or site.identity)


@pytest.fixture
def client(shared, protocol):
    """A connection to the daemon of this file."""
    with connect(shared, protocol) as c:
        yield c


def post_batch(client, items, headers=None):
    return client.request("POST", BATCH, json.dumps(items).encode(), {"Content-Type": "application/json"} | (headers or {}))


def post_lines(client, body, headers=None):
    return client.request("POST", BATCH, body, {"Content-Type": "application/x-ndjson"} | (headers or {}))


def item(text="hello", number=NUMBER):
    return {"sender_number": number, "message_body": text}


# --- one message ---

def test_a_message_is_accepted(client, shared):
    answer = client.post("hello", metadata={"order": 17})
    assert answer.status == 202
    assert answer.header("content-type") == "application/json"
    accepted = answer.json
    assert set(accepted) == {"message_id", "status", "client_id", "domain", "queued_at", "position"}
    assert uuid.UUID(accepted["message_id"]).version == 7
    assert (accepted["status"], accepted["client_id"], accepted["domain"]) == ("queued", "client_001", "example.com")
    assert TIMESTAMP.fullmatch(accepted["queued_at"])
    assert accepted["position"] >= 1
    assert answer.header("location") == f"/api/v1/messages/{accepted['message_id']}"


def test_an_invalid_message_is_refused(client):
    problem = check_problem(client.post("", number="12"), 400, "validation_error")
    assert {e["pointer"] for e in problem["errors"]} == {"/sender_number", "/message_body"}


def test_message_size(client):
    filler = 64 * 1024 - len(message())
    assert client.post_raw(message() + b" " * filler).status == 202
    check_problem(client.post_raw(message() + b" " * (filler + 1)), 413, "payload_too_large")


def test_a_certificate_is_required(shared, protocol):
    with protocol(shared.daemon.address(), None, ca=shared.identity.ca) as client:
        check_problem(client.post(), 401, "authentication_required")
        check_problem(post_batch(client, [item()]), 401, "authentication_required")
        check_problem(client.get(f"/api/v1/messages/{uuid.uuid4()}"), 401, "authentication_required")


def first_refusal(site, client):
    """The very next answer; of a proxy that is a process of its own, the first after it has heard of the revocation."""
    if site.daemon.proxy is site.daemon.server:
        return client.post()
    return eventually(lambda: (a := client.post()).status != 202 and a, "the proxy refuses", timeout=15)


def test_revoked_while_the_connection_is_open(site, protocol):
    """403 for the next request, the whole of it, and then the end of the connection."""
    identity = site.new_identity()
    with connect(site, protocol, identity) as client, connect(site, protocol) as other:
        assert client.post().status == 202
        site.daemon.cli("cert", "revoke", identity.name)
        check_problem(first_refusal(site, client), 403, "certificate_revoked")
        if protocol is Http2:
            assert "ConnectionTerminated" in [type(e).__name__ for e in client.wait_closed()]
        assert other.post().status == 202


# --- what there is ---

def test_unknown_path(client):
    check_problem(client.get("/api/v1/nothing"), 404, "not_found")


@pytest.mark.parametrize("method,path,allowed", [("DELETE", "/api/v1/messages", {"POST"}),
                                                 ("PUT", BATCH, {"POST"}), ("POST", "/livez", {"GET", "HEAD"})])
def test_wrong_method(client, method, path, allowed):
    answer = client.request(method, path)
    check_problem(answer, 405, "method_not_allowed")
    assert allowed <= {m.strip() for m in answer.header("allow").split(",")}


def test_openapi_is_served_as_it_is(client):
    answer = client.get("/openapi.yaml")
    assert (answer.status, answer.header("content-type")) == (200, "application/yaml")
    assert answer.body == OPENAPI.read_bytes()


# --- batches ---

FORMS = {
    "array": lambda client, items, headers=None: post_batch(client, items, headers),
    "lines": lambda client, items, headers=None: post_lines(
        client, b"".join(json.dumps(i).encode() + b"\n" for i in items), headers),
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def post_items(request):
    return request.param


def test_a_batch_is_accepted(client, shared, post_items):
    answer = post_items(client, [item(f"number {i}") for i in range(3)])
    assert answer.status == 202
    batch = answer.json
    assert (batch["accepted"], batch["rejected"]) == (3, 0)
    assert [r["index"] for r in batch["results"]] == [0, 1, 2]
    assert {r["status"] for r in batch["results"]} == {"queued"}
    ids = [r["message_id"] for r in batch["results"]]
    assert ids == sorted(set(ids))
    eventually(lambda: set(ids) <= shared.daemon.delivered(), "delivered")
    texts = [shared.daemon.json("messages", "show", i)["message_body"] for i in ids]
    assert texts == ["number 0", "number 1", "number 2"]


def test_a_mixed_batch(client, shared, post_items):
    answer = post_items(client, [item("first"), item(""), item("third"), item(number="12")])
    assert answer.status == 207
    batch = answer.json
    assert (batch["accepted"], batch["rejected"]) == (2, 2)
    assert [r["status"] for r in batch["results"]] == ["queued", "rejected", "queued", "rejected"]
    for result, pointer in ((batch["results"][1], "/message_body"), (batch["results"][3], "/sender_number")):
        assert "message_id" not in result
        problem = result["problem"]
        assert (problem["status"], problem["code"]) == (400, "validation_error")
        assert [e["pointer"] for e in problem["errors"]] == [pointer]
    eventually(lambda: {r["message_id"] for r in batch["results"] if "message_id" in r} <= shared.daemon.delivered(),
               "the good ones are delivered")


def test_a_batch_without_a_good_message(client, post_items):
    answer = post_items(client, [item(""), item(number="12")])
    assert answer.status == 400
    assert (answer.json["accepted"], answer.json["rejected"]) == (0, 2)


def test_an_item_beyond_the_size_of_a_message(client, post_items):
    answer = post_items(client, [item(), item() | {"metadata": {"k": "v" * 70000}}])
    assert answer.status == 207
    problem = answer.json["results"][1]["problem"]
    assert problem["code"] == "payload_too_large"
    assert "65536 bytes" in problem["errors"][0]["detail"]


@pytest.mark.parametrize("count,status", [(1, 202), (BATCH_ITEMS, 202), (BATCH_ITEMS + 1, 400), (0, 400)])
def test_how_many_items(client, post_items, count, status):
    answer = post_items(client, [item(f"{i}") for i in range(count)])
    assert answer.status == status
    if status == 202:
        assert answer.json["accepted"] == count
    else:
        check_problem(answer, 400, "validation_error")


@pytest.mark.parametrize("body", [b"{}", b"null", b"[", b"[1,2", message() + b"x"], ids=ascii)
def test_what_is_no_array(client, body):
    answer = client.request("POST", BATCH, body, {"Content-Type": "application/json"})
    check_problem(answer, 400, "validation_error")


def test_lines_with_blank_ones_and_crlf(client):
    answer = post_lines(client, b"\n" + message() + b"\r\n\r\n" + message())
    assert (answer.status, answer.json["accepted"]) == (202, 2)


def test_batch_size(client):
    lines = message() + b"\n"
    assert post_lines(client, lines + b"\n" * (BATCH_BYTES - len(lines))).status == 202


def test_batch_too_large(client, shared):
    check_problem(post_lines(client, b"\n" * (BATCH_BYTES + 1)), 413, "payload_too_large")


@pytest.mark.parametrize("media_type", ["text/plain", "application/jsonlines", ""])
def test_batch_media_type(client, media_type):
    answer = client.request("POST", BATCH, message(), {"Content-Type": media_type})
    check_problem(answer, 415, "unsupported_media_type")


CURL_VERSIONS = {Client: "--http1.1", Http2: "--http2"}


def curl_post(site, protocol, body, *headers, path="/api/v1/messages"):
    """Curl sends a header as often as it is named."""
    url = f"https://{site.daemon.ready['ingest'].split('://')[1]}{path}"
    options = [word for h in ("Content-Type: application/json", *headers) for word in ("-H", h)]
    return curl(url, site.identity, CURL_VERSIONS[protocol], "--data-binary", "@-", *options, input=body)


@pytest.mark.parametrize("coding,status", [("identity", 202), ("gzip", 415), ("deflate", 415), ("gzip, identity", 415)])
def test_content_coding(client, coding, status):
    for answer in (client.post(headers={"Content-Encoding": coding}),
                   post_batch(client, [item()], {"Content-Encoding": coding})):
        assert answer.status == status
        if status == 415:
            check_problem(answer, 415, "unsupported_media_type")
            assert answer.header("accept-encoding") == "identity"


def test_two_media_types(shared, protocol):
    check_problem(curl_post(shared, protocol, message(), "Content-Type: text/plain"), 415, "unsupported_media_type")


def test_two_keys(shared, protocol):
    for second in ("one", "two"):
        answer = curl_post(shared, protocol, message(), "Idempotency-Key: one", f"Idempotency-Key: {second}")
        check_problem(answer, 400, "validation_error")


# --- Idempotency-Key ---

def key(value=None):
    return {"Idempotency-Key": value or f"key-{uuid.uuid4()}"}


def check_replayed(first, second):
    assert first.header("idempotency-replayed") is None
    assert second.header("idempotency-replayed") == "true"
    assert (second.status, second.json) == (first.status, first.json)
    assert second.header("location") == first.header("location")


def test_a_key_gives_the_first_answer_again(client):
    k = key()
    first = client.post("once", headers=k)
    assert first.status == 202
    check_replayed(first, client.post("once", headers=k))


def test_a_key_with_another_payload(client):
    k = key()
    assert client.post("one", headers=k).status == 202
    check_problem(client.post("other", headers=k), 422, "idempotency_mismatch")


def test_a_key_is_the_clients_own(client, shared, protocol):
    k = key()
    first = client.post("mine", headers=k)
    with connect(shared, protocol, shared.new_identity()) as other:
        second = other.post("mine", headers=k)
    assert (first.status, second.status) == (202, 202)
    assert second.header("idempotency-replayed") is None
    assert first.json["message_id"] != second.json["message_id"]


def test_keys_of_a_batch(client, post_items):
    k, items = key(), [item("a"), item(""), item("c")]
    first, second = (post_items(client, items, k) for _ in range(2))
    assert (first.status, second.status) == (207, 207)
    assert second.header("idempotency-replayed") == "true"
    without = [[{f: v for f, v in r.items() if f != "problem"} for r in a.json["results"]] for a in (first, second)]
    assert without[0] == without[1]
    check_problem(post_items(client, items[:1], k), 422, "idempotency_mismatch")


def test_a_refused_message_uses_up_no_key(client):
    k = key()
    assert client.post("", headers=k).status == 400
    answer = client.post("good", headers=k)
    assert answer.status == 202 and answer.header("idempotency-replayed") is None


@pytest.mark.parametrize("value,status", [("x", 202), ("!~", 202), ("k" * 255, 202), ("k" * 256, 400), ("", 400),
                                          ("two words", 400), ("tab\there", 400), ("gr\u00fcn", 400)], ids=ascii)
def test_sane_keys(client, value, status):
    value = f"{uuid.uuid4()}"[:36] if status == 202 and len(value) < 36 else value
    answer = client.post(headers={"Idempotency-Key": value})
    assert answer.status == status
    if status == 400:
        check_problem(answer, 400, "validation_error")


def test_two_at_once_with_one_key(shared, protocol):
    """Over and over, because they have to meet before the first one's commit."""
    ids = set()
    for _ in range(20):
        k, answers, gate = key(), [], threading.Barrier(2)

        def post(client):
            gate.wait()
            answers.append(client.post("together", headers=k))
        with connect(shared, protocol) as one, connect(shared, protocol) as two:
            threads = [threading.Thread(target=post, args=(c,)) for c in (one, two)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        assert [a.status for a in answers] == [202, 202]
        assert answers[0].json == answers[1].json
        assert {a.header("idempotency-replayed") for a in answers} == {None, "true"}
        ids.add(answers[0].json["message_id"])
    eventually(lambda: ids <= shared.daemon.delivered(), "each is delivered, once")


def test_keys_outlive_a_restart(site, protocol):
    one, many = key(), key()
    with connect(site, protocol) as client:
        first = client.post("kept", headers=one), post_batch(client, [item("a"), item("b")], many)
    site.daemon.restart()
    with connect(site, protocol) as client:
        check_replayed(first[0], client.post("kept", headers=one))
        check_replayed(first[1], post_batch(client, [item("a"), item("b")], many))
        check_problem(client.post("other", headers=one), 422, "idempotency_mismatch")
    eventually(lambda: len(site.daemon.delivered()) == 3, "three messages, no more")


def test_keys_are_bounded(make_daemon, protocol):
    """No key is forgotten early to make room: what has a new one waits, all else goes on; a restart changes nothing."""
    site = Site(make_daemon(settings={"idempotency_max": "3"}).start())
    keys = [key() for _ in range(3)]
    with connect(site, protocol) as client:
        assert [client.post("kept", headers=k).status for k in keys] == [202] * 3
    site.daemon.restart()
    with connect(site, protocol) as client:
        refused = [client.post(headers=key()), post_batch(client, [item(), item()], key())]
        for answer in refused:
            check_problem(answer, 503, "idempotency_full")
            assert int(answer.header("retry-after")) > 0
        assert [client.post("kept", headers=k).header("idempotency-replayed") for k in keys] == ["true"] * 3
        assert client.post().status == 202
        assert client.get("/readyz").status == 200
        health = client.get("/api/v1/health")
        assert (health.status, health.json["status"]) == (200, "degraded")
        check = health.json["checks"]["idempotency"]
        assert check["status"] == "degraded" and check["detail"].startswith("3 of 3 ")
    metrics = scrape(site.daemon)
    assert value(metrics, "sealpost_idempotency_keys") == value(metrics, "sealpost_idempotency_keys_max") == 3
    assert value(metrics, 'sealpost_messages_rejected_total{reason="idempotency_full"}') == 1 + 2
    eventually(lambda: "queue.keys_scarce" in site.daemon.log(), "it is in the log")


# --- what became of a message ---

def test_status_of_a_message(site, protocol):
    site.daemon.cli("queue", "pause", "delivery")
    with connect(site, protocol) as client:
        accepted = client.post().json
        where = f"/api/v1/messages/{accepted['message_id']}"
        waiting = client.get(where)
        assert waiting.status == 200
        assert waiting.json["status"] == "queued"
        assert waiting.json["delivered_at"] is None and waiting.json["attempt_count"] == 0
        site.daemon.cli("queue", "resume", "delivery")
        status = eventually(lambda: (a := client.get(where).json)["status"] == "delivered" and a, "delivered")
    for name in ("message_id", "client_id", "domain", "queued_at"):
        assert status[name] == accepted[name]
    assert TIMESTAMP.fullmatch(status["delivered_at"])
    assert "message_body" not in status and "sender_number" not in status


@pytest.mark.parametrize("delivered", [False, True], ids=["waiting", "delivered"])
def test_status_of_another_clients_message(site, protocol, delivered):
    if not delivered:
        site.daemon.cli("queue", "pause", "delivery")
    with connect(site, protocol) as client:
        message_id = client.post().json["message_id"]
    if delivered:
        eventually(lambda: message_id in site.daemon.delivered(), "delivered")
    with connect(site, protocol, site.new_identity()) as other:
        check_problem(other.get(f"/api/v1/messages/{message_id}"), 404, "not_found")


@pytest.mark.parametrize("message_id", [str(uuid.UUID(int=0)), "0191e5f0-0000-7000-8000-000000000000", "nonsense",
                                        "%2e%2e", "0191e5f0-0000-7000-8000-00000000000"])
def test_status_of_an_unknown_message(client, message_id):
    check_problem(client.get(f"/api/v1/messages/{message_id}"), 404, "not_found")


# --- health ---

def test_health(client):
    answer = client.get("/api/v1/health")
    assert answer.status == 200
    health = answer.json
    assert set(health) == {"status", "version", "uptime_seconds", "timestamp", "checks"}
    assert health["status"] == "healthy"
    assert TIMESTAMP.fullmatch(health["timestamp"])
    assert {"queue", "main_server", "certificate", "disk"} <= set(health["checks"])
    assert {c["status"] for c in health["checks"].values()} == {"ok"}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_live_and_ready(client, path):
    assert client.get(path).status == 200


def test_accepting_is_paused(site, protocol):
    with connect(site, protocol) as client:
        message_id = client.post().json["message_id"]
        site.daemon.cli("queue", "pause", "accept", "--reason", "moving house")
        eventually(lambda: client.post().status == 503, "a proxy elsewhere hears of it within a second")
        for answer in (client.post(), post_batch(client, [item()])):
            check_problem(answer, 503, "unavailable")
            assert int(answer.header("retry-after")) >= 1
        assert client.get(f"/api/v1/messages/{message_id}").status == 200
        assert client.get("/livez").status == 200
        eventually(lambda: client.get("/readyz").status == 503, "not ready")
        ready, health = client.get("/readyz"), client.get("/api/v1/health")
        assert (ready.status, health.status) == (503, 503)
        assert "moving house" in ready.body.decode() and int(ready.header("retry-after")) >= 1
        assert health.json["status"] == "unhealthy"
        assert health.json["checks"]["queue"]["status"] == "failed"
        site.daemon.cli("queue", "resume", "accept")
        eventually(lambda: client.post().status == 202, "accepted again")
        eventually(lambda: client.get("/readyz").status == 200, "ready again")


def reload(site, settings):
    """Changes options while the daemon runs, as an operator would."""
    site.daemon.configure(settings)


def test_not_enough_room_on_the_disk(site, protocol):
    reload(site, {"disk_free_min": "1TiB"})
    with connect(site, protocol) as client:
        eventually(lambda: client.get("/readyz").status == 503, "not ready")
        for answer in (client.post(), post_batch(client, [item()])):
            check_problem(answer, 503, "unavailable")
            assert int(answer.header("retry-after")) >= 1
        health = client.get("/api/v1/health")
        assert (health.status, health.json["checks"]["disk"]["status"]) == (503, "failed")
        assert "MiB" in health.json["checks"]["disk"]["detail"]


# --- metrics ---

def outside_address():
    """An address of this machine that is not loopback; a connection may have it as its source all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("needs a network interface")
        return s.getsockname()[0]


def from_outside(site, protocol, identity=None):
    return protocol(site.daemon.address(), identity, ca=site.identity.ca, source=outside_address())


def test_metrics_from_loopback(shared, protocol):
    with protocol(shared.daemon.address(), None, ca=shared.identity.ca) as client:
        answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.header("content-type").startswith("text/plain; version=0.0.4")
    assert "sealpost_messages_accepted_total" in answer.body.decode()


def test_metrics_from_elsewhere(shared, protocol):
    with from_outside(shared, protocol) as anyone:
        check_problem(anyone.get("/metrics"), 401, "authentication_required")
        assert anyone.get("/livez").status == 200
    with from_outside(shared, protocol, shared.identity) as client:
        check_problem(client.get("/metrics"), 403, "forbidden")
    monitor = shared.daemon.issue("watcher", "--role", "monitor")
    with from_outside(shared, protocol, monitor) as client:
        assert client.get("/metrics").status == 200
        check_problem(client.post(), 403, "forbidden")


def test_strangers_learn_no_reasons(site, protocol):
    site.daemon.cli("queue", "pause", "accept", "--reason", "moving house")
    with from_outside(site, protocol) as anyone, from_outside(site, protocol, site.identity) as client:
        eventually(lambda: anyone.get("/readyz").status == 503, "not ready")
        assert anyone.get("/readyz").body == b"not ready\n"
        checks = anyone.get("/api/v1/health").json["checks"]
        assert checks["queue"] == {"status": "failed"} and not any("detail" in c for c in checks.values())
        assert "moving house" in client.get("/readyz").body.decode()
        assert "moving house" in client.get("/api/v1/health").json["checks"]["queue"]["detail"]


def test_public_metrics(site, protocol):
    with from_outside(site, protocol) as anyone:
        assert anyone.get("/metrics").status == 401
        reload(site, {"metrics_public": "true"})
        eventually(lambda: anyone.get("/metrics").status == 200, "anyone may read them")


# --- rate limits ---

def rates(answer):
    """{"client": {"q": …, "w": …, "r": …, "t": …}, …} of both headers."""
    found = {}
    for header in ("ratelimit-policy", "ratelimit"):
        for policy in answer.header(header).split(", "):
            name, *members = policy.split(";")
            found.setdefault(name.strip('"'), {}).update((k, int(v)) for k, v in (m.split("=") for m in members))
    return found


@pytest.fixture
def limited(make_daemon):
    def start(**settings):
        return Site(make_daemon(settings={k: str(v) for k, v in settings.items()}).start())
    return start


def test_no_limit_no_headers(client):
    answer = client.post()
    assert answer.header("ratelimit") is None and answer.header("ratelimit-policy") is None


def test_rate_of_a_client(limited, protocol):
    """One a second, three at once: the fourth has to wait, another client does not."""
    site = limited(rate_client=1, rate_client_burst=3)
    with connect(site, protocol) as client, connect(site, protocol, site.new_identity()) as other:
        answers = [client.post() for _ in range(3)]
        assert [a.status for a in answers] == [202] * 3
        assert rates(answers[0]) == {"client": {"q": 3, "w": 3, "r": 2, "t": 1}}
        refused = eventually(lambda: (a := client.post()).status == 429 and a, "the limit is reached", interval=0)
        check_problem(refused, 429, "too_many_requests")
        assert int(refused.header("retry-after")) >= 1
        assert rates(refused)["client"]["r"] == 0
        assert other.post().status == 202
        assert client.get("/livez").status == 200, "other routes have no limit"
        eventually(lambda: client.post().status == 202, "tokens flow in again")


def test_rate_of_a_domain(limited, protocol):
    """Two clients share one domain's tokens; a third, of another domain, has its own."""
    site = limited(rate_domain=1, rate_domain_burst=4)
    stranger = site.daemon.issue("stranger", "--domain", "example.org")
    with connect(site, protocol) as one, connect(site, protocol, site.new_identity()) as two, \
            connect(site, protocol, stranger) as three:
        assert [c.post().status for c in (one, two, one, two)] == [202] * 4
        refused = eventually(lambda: (a := two.post()).status == 429 and a, "the limit is reached", interval=0)
        assert rates(refused)["domain"]["q"] == 4
        assert three.post().status == 202


def test_a_batch_counts_its_messages(limited, protocol):
    site = limited(rate_client=1, rate_client_burst=100)
    with connect(site, protocol) as client:
        answer = post_batch(client, [item(f"{i}") for i in range(99)] + [item("")])
        assert (answer.status, answer.json["accepted"]) == (207, 99)
        assert rates(answer)["client"]["r"] in (1, 2), "refused items cost nothing"
        check_problem(post_batch(client, [item()] * 50), 429, "too_many_requests")
        assert client.post().status == 202
        refused = value(scrape(site.daemon), 'sealpost_messages_rejected_total{reason="too_many_requests"}')
        assert refused == 50


def test_a_replay_costs_nothing(limited, protocol):
    """Who asks again because an answer was lost is not slowed down for it, nor by a key that does not fit."""
    site = limited(rate_client=1, rate_client_burst=30)
    with connect(site, protocol) as client:
        for send in (client.post_raw, lambda body, headers: post_lines(client, body, headers)):
            key = {"Idempotency-Key": str(uuid.uuid4())}
            before = rates(send(message(), key))["client"]["r"]
            answers = [send(message(), key) for _ in range(20)]
            assert {a.header("idempotency-replayed") for a in answers} == {"true"}
            assert [send(message(message_body="other"), key).status for _ in range(20)] == [422] * 20
            assert rates(client.post())["client"]["r"] >= before - 1


# --- ids of requests and traces ---

def test_request_id(client):
    assert client.get("/livez", **{"X-Request-Id": "order-17"}).header("x-request-id") == "order-17"
    made = [client.post().header("x-request-id") for _ in range(2)]
    assert made[0] != made[1] and all(made)
    unwanted = client.get("/livez", **{"X-Request-Id": "no spaces please"}).header("x-request-id")
    assert unwanted and unwanted != "no spaces please"


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("sent,kept", [(TRACE, TRACE), ("nonsense", None), (TRACE.upper(), None)])
def test_traceparent(client, shared, sent, kept):
    ids = [client.post(headers={"traceparent": sent}).json["message_id"],
           post_batch(client, [item()], {"traceparent": sent}).json["results"][0]["message_id"]]
    eventually(lambda: set(ids) <= shared.daemon.delivered(), "delivered")
    for message_id in ids:
        assert shared.daemon.json("messages", "show", message_id).get("traceparent") == kept
