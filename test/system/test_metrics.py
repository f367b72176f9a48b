"""The metrics endpoint: who may read it, that Prometheus likes it, and that it counts what happened."""
import re
import shutil
import subprocess
import urllib.request

import pytest

from waiting import eventually


def scrape(daemon):
    with urllib.request.urlopen(daemon.ready["metrics"] + "/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return answer.read().decode()


def value(text, name):
    """Sum over all series of that name."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if re.match(re.escape(name) + r"(\{| )", line))


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_promtool_has_no_complaint(shared):
    with shared.client() as client:
        client.post()
        client.post("")
    result = subprocess.run(["promtool", "check", "metrics"], input=scrape(shared.daemon), capture_output=True,
                            text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_counts(site):
    with site.client() as client:
        for _ in range(5):
            assert client.post().status == 202
        for _ in range(3):
            assert client.post("").status == 400
    eventually(lambda: len(site.daemon.delivered()) == 5, "all are delivered")
    eventually(lambda: value(scrape(site.daemon.server), "sealpost_messages_stored_total") >= 5, "counted after the commit")
    text = scrape(site.daemon)
    assert value(text, "sealpost_messages_accepted_total") == 5
    assert value(text, "sealpost_messages_rejected_total") == 3
    assert 'sealpost_messages_rejected_total{reason="validation_error"} 3' in text
    assert value(text, "sealpost_accept_to_commit_seconds_count") == 5
    assert value(scrape(site.daemon.server), "sealpost_messages_stored_total") == 5


def test_nothing_private_in_a_label(shared):
    text = scrape(shared.daemon)
    assert "+49" not in text and "client_001" not in text


def test_who_may_read_them_on_the_ingest_listener(shared):
    monitor = shared.daemon.issue("prometheus", "--role", "monitor")
    with shared.client(monitor) as client:
        assert client.get("/metrics").status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/v1/health"])
def test_health_on_the_plain_listener(shared, path):
    with urllib.request.urlopen(shared.daemon.ready["metrics"] + path) as answer:
        assert answer.status == 200
