"""A message from a client's POST to the administrator who reads it."""
import re

import pytest

from client import NUMBER, Load, curl
from waiting import eventually

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_accepted_delivered_read_back(shared):
    with shared.client() as client:
        answer = client.post("Grüße aus Köln 🚀", metadata={"order": 7})
    assert answer.status == 202
    accepted = answer.json
    assert set(accepted) == {"message_id", "status", "client_id", "domain", "queued_at", "position"}
    assert UUID7.fullmatch(accepted["message_id"])
    assert TIME.fullmatch(accepted["queued_at"])
    assert (accepted["status"], accepted["client_id"], accepted["domain"]) == ("queued", "client_001", "example.com")
    assert accepted["position"] >= 1
    assert answer.header("location") == f"/api/v1/messages/{accepted['message_id']}"

    message_id = accepted["message_id"]
    eventually(lambda: message_id in shared.daemon.delivered(), "the message is delivered")
    row = next(m for m in shared.daemon.messages() if m["message_id"] == message_id)
    assert (row["client_id"], row["domain"]) == ("client_001", "example.com")
    assert row["queued_at"] == accepted["queued_at"]
    assert row["delivered_at"] >= row["queued_at"]

    shown = shared.daemon.json("messages", "show", message_id)
    assert shown["sender_number"] == NUMBER
    assert shown["message_body"] == "Grüße aus Köln 🚀"
    assert "Grüße aus Köln 🚀" in shared.daemon.cli("messages", "show", message_id).stdout


def test_plain_curl(shared):
    url = shared.daemon.ready["ingest"] + "/api/v1/messages"
    answer = curl(url, shared.identity, "-H", "Content-Type: application/json",
                  "-d", '{"sender_number":"+4915112345678","message_body":"from curl"}')
    assert answer.status == 202
    eventually(lambda: answer.json["message_id"] in shared.daemon.delivered(), "curl's message is delivered")


@pytest.mark.parametrize("options", [["--http1.1"], ["--http2"]], ids=["http/1.1", "http/2"])
def test_curl_speaks_both_versions(shared, options):
    answer = curl(shared.daemon.ready["ingest"] + "/api/v1/messages", shared.identity, *options,
                  "-H", "Content-Type: application/json",
                  "-d", '{"sender_number":"+4915112345678","message_body":"either version"}')
    assert answer.status == 202


@pytest.mark.threads
def test_ten_thousand_messages_from_sixteen_connections(site):
    acknowledged = Load(site.daemon.address(), site.identity, connections=16, total=10000).join()
    assert len(acknowledged) == len(set(acknowledged)) == 10000
    eventually(lambda: len(site.daemon.delivered()) >= 10000, "all of them are delivered", timeout=120, interval=0.5)
    assert site.daemon.delivered() == set(acknowledged)
    # The queue forgets a message once it has heard that it is stored.
    stats = eventually(lambda: (s := site.daemon.json("queue", "stats"))["queued"] + s["processing"] == 0 and s, "settled")
    assert stats["failed"] == 0


def test_a_stopped_daemon_delivers_what_it_had_accepted_when_it_comes_back(site):
    daemon = site.daemon
    daemon.cli("queue", "pause", "delivery")
    with site.client() as client:
        ids = {client.post(f"waiting {i}").json["message_id"] for i in range(50)}
    daemon.restart()
    assert daemon.json("queue", "stats")["queued"] == 50, "a pause survives a restart"
    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: daemon.delivered() == ids, "everything that waited is delivered")
