"""Dead letters: what is seen of them, and what an operator does with them."""
import json
import os
import pty
import re
import subprocess
import time

import pytest

from client import Client
from daemon import binary, environment
from waiting import eventually

REFUSED_USAGE, NOT_FOUND = 2, 3

pytestmark = pytest.mark.everywhere


def stats(daemon):
    return daemon.json("queue", "stats")


@pytest.fixture
def dead(make_daemon):
    """A daemon with three dead letters, of two clients, that had expired when they were to be delivered."""
    daemon = make_daemon(settings={"message_lifetime": "1ms"}).start()
    other = daemon.issue("other", "--domain", "example.org")
    daemon.cli("queue", "pause", "delivery")
    daemon.ids = []
    for identity in (daemon.issued("client_001"), other, daemon.issued("client_001")):
        with Client(daemon.address(), identity) as client:
            daemon.ids.append(client.post().json["message_id"])
    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: stats(daemon)["failed"] == 3, "three dead letters")
    return daemon


def ids_of(entries):
    return [e["message_id"] for e in entries]


def test_every_attempt_is_shown(dead):
    for command in (("queue", "dead"), ("queue", "list", "failed")):
        entries = dead.json(*command)
        assert ids_of(entries) == dead.ids
        for entry in entries:
            assert entry["status"] == "failed" and entry["error_message"] == "expired"
            attempt, = entry["attempts"]
            assert attempt["error_message"] == "expired" and attempt["at"] >= entry["queued_at"]
            assert re.fullmatch(r"\S+:\d+", attempt["worker"])
    shown = dead.json("queue", "show", dead.ids[1])
    assert shown["client_id"] == "other" and len(shown["attempts"]) == 1
    text = dead.cli("queue", "show", dead.ids[1]).stdout
    assert "expired" in text and "other" in text and "+49" not in text
    assert dead.cli("queue", "show", "019a1b2c-3d4e-7f50-8a6b-7c8d9e0f1a2b", check=False).returncode == 3


def test_filters(dead):
    def listed(*options):
        return ids_of(dead.json("queue", "dead", *options))
    assert listed("--client", "other") == [dead.ids[1]]
    assert listed("--domain", "example.com") == [dead.ids[0], dead.ids[2]]
    assert listed("--error", "expire") == dead.ids
    assert listed("--error", "unknown_client") == []
    assert listed("--older-than", "1h") == []
    eventually(lambda: listed("--older-than", "10ms") == dead.ids, "all are older than 10 ms")
    for wrong in (("--older-than", "soon"), ("--before", "yesterday"),
                  ("--older-than", "1h", "--before", "2026-01-01T00:00:00Z")):
        assert dead.cli("queue", "dead", *wrong, check=False).returncode == REFUSED_USAGE


def test_dry_run_purge_and_audit(dead):
    assert dead.json("queue", "purge", "--client", "other", "--dry-run") == {"matched": 1, "dry_run": True}
    assert stats(dead)["failed"] == 3
    assert dead.json("queue", "purge", "--client", "other") == {"matched": 1, "dry_run": False}
    assert ids_of(dead.json("queue", "dead")) == [dead.ids[0], dead.ids[2]]
    dead.cli("queue", "purge", dead.ids[0])
    assert ids_of(dead.json("queue", "dead")) == [dead.ids[2]]
    rows = [r for r in dead.json("audit", "list") if r["action"] == "queue.purge"]
    assert len(rows) == 2, "a dry run leaves no trace"
    assert '"client":"other"' in str(rows).replace("'", '"').replace(" ", "")


def test_by_id(dead):
    assert dead.json("queue", "purge", *dead.ids[:2], "--rate", "1") == {"matched": 2, "dry_run": False}
    assert ids_of(dead.json("queue", "dead")) == dead.ids[2:]
    rows = [r["detail"]["ids"] for r in dead.json("audit", "list") if r["action"] == "queue.purge"]
    assert rows == [dead.ids[:2]] * 2, "the trail says which"
    gone = dead.cli("queue", "purge", dead.ids[0], check=False)
    assert gone.returncode == NOT_FOUND and "no dead letter" in gone.stderr
    for wrong in (("x",), ("--all", "--client", "other"), (dead.ids[2], "--all"), ()):
        assert dead.cli("queue", "purge", *wrong, check=False).returncode == REFUSED_USAGE
    assert ids_of(dead.json("queue", "dead")) == dead.ids[2:]


def test_redriven_messages_are_delivered(dead):
    dead.stop()
    dead.worker.settings["message_lifetime"] = "0s"
    dead.start()
    started = time.monotonic()
    assert dead.json("queue", "redrive", "--all", "--rate", "2") == {"matched": 3, "dry_run": False}
    assert time.monotonic() - started >= 1, "two at once, then a second's wait"
    eventually(lambda: dead.delivered() == set(dead.ids), "redriven messages are delivered")
    assert stats(dead)["failed"] == 0


def test_redrive_ends_when_messages_fail_again(dead):
    assert dead.json("queue", "redrive", "--all")["matched"] == 3
    eventually(lambda: stats(dead)["failed"] == 3, "they have expired again")


def on_terminal(daemon, answer, *args):
    """Runs a command on a terminal and types an answer; exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([binary(), *args, "--data", str(daemon.data)], stdin=theirs, stderr=theirs, stdout=theirs,
                               env=environment(None), start_new_session=True)
    os.close(theirs)
    os.write(ours, answer)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(60), shown.decode()


def test_people_are_asked(dead):
    code, shown = on_terminal(dead, b"n\n", "queue", "purge", "--all")
    assert code == 1 and "purge 3 dead letters?" in shown and stats(dead)["failed"] == 3
    code, shown = on_terminal(dead, b"y\n", "queue", "purge", "--domain", "example.com")
    assert code == 0 and "2 messages purged" in shown and stats(dead)["failed"] == 1
    code, shown = on_terminal(dead, b"", "queue", "purge", "--all")
    assert code == 0 and "?" not in shown, "one needs no question"


def test_people_who_say_yes_are_not_asked(dead):
    code, shown = on_terminal(dead, b"", "queue", "purge", "--all", "--yes")
    assert code == 0 and "?" not in shown and stats(dead)["failed"] == 0


def test_pauses_are_separate_keep_their_reason_and_survive(make_daemon):
    daemon = make_daemon().start()
    daemon.cli("queue", "pause", "delivery", "--reason", "moving the database")
    with Client(daemon.address(), daemon.issued("client_001")) as client:
        accepted = client.post().json["message_id"]
    daemon.cli("queue", "pause", "accept", "--reason", "full")
    eventually(lambda: "full" in daemon.proxy.health()["checks"]["queue"]["detail"], "the proxy has looked")
    daemon.stop()
    daemon.spawn()  # it is not ready: it does not accept
    eventually((daemon.data / "admin.sock").exists, "the daemon listens for administrators")

    def answer():
        result = daemon.cli("queue", "stats", "--json", check=False)
        return result.returncode == 0 and json.loads(result.stdout)
    now = eventually(answer, "and answers them")
    assert (now["delivery_paused"], now["delivery_reason"]) == (True, "moving the database")
    assert (now["accept_paused"], now["accept_reason"]) == (True, "full")
    assert now["queued"] == 1
    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: daemon.delivered() == {accepted}, "delivery goes on while accepting is paused")
    assert stats(daemon)["accept_paused"] and not stats(daemon)["delivery_paused"]
    daemon.cli("queue", "resume", "accept")
    daemon.wait_ready()
