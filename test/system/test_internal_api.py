"""What proxies and workers on other machines ask of the main server, and who may ask."""
import base64
import json
import time
import uuid

import pytest

from client import Client

DELIVER, REGISTER = "/internal/messages/deliver", "/internal/messages/register"
QUEUED_AT = "2026-01-31T12:00:00.000Z"


def new_id():
    """A UUIDv7, which Python learns to make later."""
    number = int(time.time() * 1000) << 80 | 7 << 76 | uuid.uuid4().int & 0xfff << 64 | 2 << 62 | uuid.uuid4().int >> 66
    return str(uuid.UUID(int=number))


def sealed(message_id=None, **members):
    """A message that nobody can open: an envelope of the right shape, under a key of nobody's."""
    envelope = bytes([1]) + bytes(8 + 32 + 8) + b"sixteen bytes and more"
    return {"message_id": message_id or new_id(), "client_id": "client_001", "domain": "example.com",
            "queued_at": QUEUED_AT, "attempt_count": 0, "envelope": base64.b64encode(envelope).decode()} | members


@pytest.fixture(scope="module")
def role(shared):
    """role(name): a connection to the main server with a certificate of that role."""
    identities = {}

    def connect(name):
        if name not in identities:
            identities[name] = shared.daemon.issue(f"{name}-x", "--role", name)
        return Client(shared.daemon.address("server"), identities[name])
    return connect


def post(client, path, messages):
    return client.request("POST", path, json.dumps({"worker_id": "test", "messages": messages}),
                          {"Content-Type": "application/json"})


def test_each_message_of_a_delivery_has_its_own_result(role):
    unopened, stranger, no_id = new_id(), new_id(), "not-an-id"
    batch = [sealed(unopened), sealed(stranger, client_id="stranger"), sealed(no_id),
             sealed(new_id(), envelope="***"), sealed(new_id(), attempt_count=-1), 17]
    with role("worker") as worker:
        answer = post(worker, DELIVER, batch)
    assert answer.status == 200
    results = [(r["message_id"], r["result"], r["code"]) for r in answer.json["results"]]
    assert results == [
        (unopened, "rejected", "does_not_open"),
        (stranger, "rejected", "unknown_client"),
        (None, "rejected", "malformed"),
        (batch[3]["message_id"], "rejected", "malformed"),
        (batch[4]["message_id"], "rejected", "malformed"),
        (None, "rejected", "malformed"),
    ]


def test_a_batch_has_bounds(role):
    with role("worker") as worker:
        for batch in ([], [17] * 501):
            assert post(worker, DELIVER, batch).status == 400
        assert len(post(worker, DELIVER, [17] * 500).json["results"]) == 500


def test_registered_messages_show_their_state(shared, role):
    message = sealed()
    where = f"/internal/messages/{message['message_id']}"
    with role("proxy") as proxy, role("worker") as worker:
        answer = post(proxy, REGISTER, [message, sealed(client_id="stranger"), 17])
        assert answer.json == {"registered": 1, "skipped": 2}
        assert post(proxy, REGISTER, [message]).json == {"registered": 0, "skipped": 1}
        assert proxy.get(where).json["status"] == "queued"
        report = {"status": "failed", "attempt_count": 3, "error_message": "expired"}
        changed = worker.request("PUT", where + "/status", json.dumps(report), {"Content-Type": "application/json"})
        assert changed.json == {"changed": True}
        state = proxy.get(where).json
        assert (state["status"], state["attempt_count"], state["error_message"]) == ("failed", 3, "expired")
    row, = [m for m in shared.daemon.messages() if m["message_id"] == message["message_id"]]
    assert row["status"] == "failed"


def test_another_epoch_or_a_number_of_the_future_is_answered_from_the_start(role):
    def changes(proxy, **query):
        words = "&".join(f"{k}={v}" for k, v in query.items())
        return proxy.get("/internal/revocations?" + words).json
    with role("proxy") as proxy:
        first = changes(proxy, after=0)
        assert first["certificates"] and len(first["epoch"]) == 32
        last = first["change"]
        assert changes(proxy, after=last, epoch="0" * 32) == first
        assert changes(proxy, after=last + 1000, epoch=first["epoch"]) == first
        later = changes(proxy, after=last - 1, epoch=first["epoch"])
        assert [c["change"] for c in later["certificates"]] == [last]


@pytest.mark.parametrize("name, path, allowed", [
    ("worker", DELIVER, True), ("proxy", DELIVER, False), ("admin", DELIVER, False), ("monitor", DELIVER, False),
    ("proxy", REGISTER, True), ("worker", REGISTER, False)])
def test_only_the_role_named_may_ask(role, name, path, allowed):
    with role(name) as client:
        assert post(client, path, [sealed(client_id="stranger")]).status == (200 if allowed else 403)
