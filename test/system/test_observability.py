"""The access log, the metrics that dashboards need, and the committed references."""
import json
import re
import urllib.request
from pathlib import Path

import pytest

from daemon import Site, run_cli
from waiting import eventually

DOC = Path(__file__).resolve().parents[2] / "doc"


def scrape(daemon):
    with urllib.request.urlopen(daemon.ready["metrics"] + "/metrics") as answer:
        return answer.read().decode()


def series(text, name):
    """{labels: value} of all series of that name."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


@pytest.fixture
def logged(make_daemon):
    return Site(make_daemon(settings={"access_log": "true", "log_format": "json"}).start())


def requests_logged(daemon, listener):
    lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return [e for e in lines if e["event"] == "http.request" and e["listener"] == listener]


def test_access_log(logged):
    with logged.client() as client:
        message_id = client.post("nobody else reads this", headers={"X-Request-Id": "order-7"}).json["message_id"]
        client.get(f"/api/v1/messages/{message_id}?q=private")
        client.get("/nowhere/in/particular")
        port = client.connection.sock.getsockname()[1]
    with logged.anonymous() as nobody:
        nobody.get("/livez")
    events = eventually(lambda: len(e := requests_logged(logged.daemon, "ingest")) >= 4 and e, "four lines")
    # Two connections may be of two threads, whose lines come in any order.
    post, get, nowhere, livez = (next(e for e in events if e["route"] == route) for route in (
        "/api/v1/messages", "/api/v1/messages/{id}", "none", "/livez"))
    assert set(post) >= {"time", "level", "listener", "method", "route", "status", "bytes", "duration_us",
                         "request_id", "client", "address"}
    assert (post["method"], post["route"], post["status"]) == ("POST", "/api/v1/messages", 202)
    assert (post["request_id"], post["client"]) == ("order-7", "client_001")
    assert post["address"] in ("127.0.0.1", f"127.0.0.1:{port}")
    assert post["bytes"] > 0 and post["duration_us"] > 0
    assert (get["route"], get["status"]) == ("/api/v1/messages/{id}", 200)
    assert (nowhere["route"], nowhere["status"]) == ("none", 404)
    assert (livez["route"], livez["client"]) == ("/livez", "-")
    log = logged.daemon.log()
    for private in ("private", "particular", "nobody else", "+4915112345678", message_id):
        assert private not in log
    logged.daemon.json("queue", "stats")
    eventually(lambda: requests_logged(logged.daemon, "admin"), "the admin socket's requests are there too")


def test_access_log_is_off_by_default(site):
    with site.client() as client:
        client.post()
    site.daemon.stop()
    assert "http.request" not in site.daemon.log()


NAMED = {
    "sealpost_build_info", "sealpost_http_requests_total", "sealpost_http_request_duration_seconds_count",
    "sealpost_accept_to_commit_seconds_count", "sealpost_queue_group_operations_count", "sealpost_queue_messages",
    "sealpost_queue_oldest_age_seconds", "sealpost_tls_handshakes_total", "sealpost_http_connections",
    "sealpost_messages_rejected_total", "sealpost_certificate_expiry_timestamp_seconds",
    "sealpost_delivery_breaker_state", "sealpost_deliveries_in_flight", "sealpost_http_requests_in_flight",
}


def test_what_dashboards_need_is_there(site):
    with site.client() as client:
        assert client.post().status == 202
        assert client.post("").status == 400
        text = "".join(scrape(role) for role in site.daemon.roles)
    missing = {name for name in NAMED if not series(text, name)}
    assert not missing
    assert series(text, "sealpost_http_connections")['listener="ingest"'] == 1
    assert series(text, "sealpost_tls_handshakes_total")['listener="ingest",outcome="ok"'] == 1
    states = series(scrape(site.daemon.worker), "sealpost_delivery_breaker_state")
    assert states == {'state="closed"': 1, 'state="half_open"': 0, 'state="open"': 0}
    certificates = series(text, "sealpost_certificate_expiry_timestamp_seconds")
    assert {'certificate="ingest"', 'certificate="server"', 'certificate="issuing_ca"'} <= set(certificates)
    alone = site.daemon.worker is not site.daemon
    assert alone == ('certificate="worker"' in certificates), "a worker on its own has a certificate of its own"


@pytest.mark.parametrize("page, options", [("configuration.md", []), ("metrics.md", ["--metrics"])])
def test_the_reference_is_that_of_the_program(page, options):
    """Made anew by `sealpost config reference [--metrics] > doc/PAGE`."""
    assert (DOC / page).read_text() == run_cli("config", "reference", *options).stdout
