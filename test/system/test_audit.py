"""The audit trail: what is in it, and that whoever tampers with it is found out."""
import json
import shutil
import sqlite3

import pytest

from client import Client
from daemon import Sealpost, run_cli
from est import enroll, token
from waiting import eventually


def rows(daemon, *options):
    """Newest first."""
    return daemon.json("audit", "list", *options)


def verdict(daemon, *options):
    """(exit code, verdict)"""
    result = daemon.cli("audit", "verify", "--json", *options, check=False)
    return result.returncode, json.loads(result.stdout)


# --- who, from where, what, result ---

def test_every_kind_of_action_leaves_a_row(site):
    daemon = site.daemon
    identity = site.new_identity()
    daemon.cli("cert", "renew", identity.name, "--out", daemon.certs)
    daemon.cli("client", "suspend", identity.name)
    daemon.cli("client", "resume", identity.name)
    daemon.cli("cert", "revoke", identity.name, "--reason", "keyCompromise")
    daemon.cli("queue", "pause", "delivery")
    daemon.cli("queue", "resume", "delivery")
    with site.client() as client:
        message = client.post().json["message_id"]
    eventually(lambda: message in daemon.delivered(), "the message is delivered")
    daemon.cli("messages", "show", message)
    said = [(r["action"], r["target"], r["result"]) for r in reversed(rows(daemon))]
    name = identity.name
    expected = [("certificate.issue", name), ("certificate.renew", name), ("client.suspend", name),
                ("client.resume", name), ("certificate.revoke", name), ("queue.pause", "delivery"),
                ("queue.resume", "delivery"), ("message.read", message)]
    assert [s for s in said if s[:2] in expected] == [(*e, "ok") for e in expected]
    assert all(r["actor"] and r["origin"] for r in rows(daemon, "--target", name))
    revoked = rows(daemon, "--action", "certificate.revoke")[0]
    assert revoked["detail"] == {"reason": "keyCompromise", "revoked": 2}


def test_what_devices_do_leaves_rows(site, tmp_path):
    daemon = site.daemon
    made = token(daemon, "meter")
    device = enroll(made, tmp_path)
    assert enroll(made, tmp_path / "again", check=False).returncode == 4
    daemon.cli("client", "revoke-token", token(daemon, "meter", fresh=False)["token_id"])
    first = daemon.json("cert", "show", "meter")["serial"]
    run_cli("renew", "--url", daemon.ready["server"], "--cert", device.cert, "--key", device.key, "--ca", device.ca, "--force")
    with site.client(device) as client:
        client.get("/api/v1/health")
    eventually(lambda: rows(daemon, "--action", "certificate.supersede"), "the certificate before ends")
    daemon.cli("client", "remove", "meter")
    said = [(r["actor"], r["origin"], r["action"], r["result"]) for r in reversed(rows(daemon, "--target", "meter"))]
    us, them = ("local administrator", "unix"), ("127.0.0.1",)
    assert said == [
        (*us, "client.add", "ok"), (*us, "token.create", "ok"),
        (f"token {made['token_id']}", *them, "certificate.issue", "ok"), ("device", *them, "client.enroll", "refused"),
        (*us, "token.create", "ok"), ("meter", *them, "certificate.renew", "ok"),
        ("sealpost", "main server", "certificate.supersede", "ok"), (*us, "client.remove", "ok")]
    [row] = rows(daemon, "--action", "certificate.supersede")
    assert row["detail"] == {"serial": first, "role": "client"}
    assert rows(daemon, "--action", "client.remove")[0]["detail"] == {"certificates": 1, "tokens": 0}
    assert rows(daemon, "--action", "client.enroll")[0]["detail"] == {"reason": "used", "token": made["token_id"]}
    assert rows(daemon, "--action", "token.revoke")[0]["result"] == "ok"


def test_every_operation_on_keys_leaves_a_row(make_daemon, tmp_path):
    """With a daemon and without one, also where it fails."""
    daemon = make_daemon()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    passphrase.chmod(0o600)
    secret = ("--passphrase-file", passphrase)
    steps = (
        (("export-root", "--key", tmp_path / "root.key", *secret), 0), (("rotate-issuing",), 0),
        (("export-root", "--key", tmp_path / "again.key", "--remove", *secret), 0), (("rotate-issuing",), 3),
        (("import-root", tmp_path / "root.key", *secret), 0))
    for step, (command, code) in enumerate(steps):
        if step == 1:
            daemon.start()
        assert daemon.cli("ca", *command, check=False).returncode == code, command
    said = [r for r in reversed(rows(daemon)) if r["action"].startswith("ca.")]
    assert [(r["action"], r["result"]) for r in said] == [
        ("ca.create", "ok"), ("ca.root.export", "ok"), ("ca.rotate", "ok"), ("ca.root.export", "ok"),
        ("ca.root.remove", "ok"), ("ca.rotate", "failed"), ("ca.root.import", "ok")]
    assert all(r["actor"] and r["origin"] and r["target"] for r in said)
    assert said[0]["actor"] == "sealpost" and set(said[0]["detail"]) == {"sealing_key"}


def test_who_it_was_and_from_where(site):
    admin = site.daemon.issue("alice", "--role", "admin")
    with Client(site.daemon.address("server"), admin) as client:
        answer = client.request("POST", "/admin/clients/suspend", json.dumps({"name": site.identity.name}),
                                {"Content-Type": "application/json"})
        assert answer.status == 200
    row = rows(site.daemon, "--limit", 1)[0]
    assert (row["actor"], row["origin"], row["action"]) == ("alice", "127.0.0.1", "client.suspend")
    assert [r["actor"] for r in rows(site.daemon, "--actor", "alice")] == ["alice"]


def test_filters_and_limit(shared):
    for name in ("filter-1", "filter-2"):
        shared.daemon.issue(name)
    assert [r["target"] for r in rows(shared.daemon, "--limit", 2)] == ["filter-2", "filter-1"]
    assert len(rows(shared.daemon, "--target", "filter-1")) == 1
    at = rows(shared.daemon, "--target", "filter-2")[0]["at"]
    assert [r["target"] for r in rows(shared.daemon, "--since", at)] == ["filter-2"]
    assert "filter-2" not in [r["target"] for r in rows(shared.daemon, "--until", at)]
    assert "certificate.issue" in shared.daemon.cli("audit", "list").stdout
    assert shared.daemon.cli("audit", "list", "--since", "yesterday", check=False).returncode == 2


# --- tampering ---

@pytest.fixture(scope="module")
def long_trail(template, tmp_path_factory):
    """A directory with some rows in the trail."""
    directory = tmp_path_factory.mktemp("trail") / "daemon"
    shutil.copytree(template, directory)
    for i in range(6):
        Sealpost(directory).issue(f"client-{i}")
    return directory


@pytest.fixture
def trail(long_trail, tmp_path):
    """A copy of it, of a daemon that does not run."""
    shutil.copytree(long_trail, tmp_path / "daemon")
    return Sealpost(tmp_path / "daemon")


def tamper(daemon, *statements):
    with sqlite3.connect(next(daemon.data.glob("store/*.db"))) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


# name: (statements, fault, row; None: the last plus that)
TAMPERING = {
    "edit": (["UPDATE audit SET target = 'mallory' WHERE sequence = 4"], "changed", 4),
    "edit the time": (["UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 2"], "changed", 2),
    "edit a hash": (["UPDATE audit SET hash = zeroblob(32) WHERE sequence = 3"], "changed", 3),
    "delete": (["DELETE FROM audit WHERE sequence = 3"], "missing", 3),
    "delete and close the gap": (["DELETE FROM audit WHERE sequence = 3",
                                  "UPDATE audit SET sequence = sequence - 1 WHERE sequence > 3"], "changed", 3),
    "reorder": (["UPDATE audit SET sequence = -1 WHERE sequence = 2", "UPDATE audit SET sequence = 2 WHERE sequence = 5",
                 "UPDATE audit SET sequence = 5 WHERE sequence = -1"], "changed", 2),
    "insert at the front": (["UPDATE audit SET sequence = sequence + 100",
                             "INSERT INTO audit SELECT 1, at_ms, actor, origin, action, target, result, detail, hash "
                             "FROM audit WHERE sequence = 103",
                             "UPDATE audit SET sequence = sequence - 99 WHERE sequence > 100"], "changed", 1),
    "truncate": (["DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)"], "missing", None),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_is_found(trail, case):
    statements, fault, row = TAMPERING[case]
    code, before = verdict(trail)
    assert code == 0 and before["intact"] and before["checked"] >= 6
    tamper(trail, *statements)
    code, after = verdict(trail)
    assert code == 1 and not after["intact"]
    assert (after["fault"], after["sequence"]) == (fault, row or before["checked"])
    assert f"row {after['sequence']} " in trail.cli("audit", "verify", check=False).stdout


def test_an_exported_head_finds_what_the_chain_cannot(trail, tmp_path):
    """Rows cut off, and the count with them: what is left is whole in itself."""
    head = tmp_path / "head.json"
    head.write_text(trail.cli("audit", "export", "--head").stdout)
    assert verdict(trail, "--head", head)[0] == 0
    trail.issue("later")
    assert verdict(trail, "--head", head)[0] == 0
    last = json.loads(head.read_text())["sequence"]
    tamper(trail, f"DELETE FROM audit WHERE sequence >= {last}",
           f"UPDATE counters SET value = {last - 1} WHERE name LIKE 'audit%'")
    assert verdict(trail)[0] == 0
    code, found = verdict(trail, "--head", head)
    assert code == 1 and (found["fault"], found["sequence"]) == ("missing", last)
    trail.issue("instead")
    trail.issue("instead-2")
    assert verdict(trail)[0] == 0
    code, found = verdict(trail, "--head", head)
    assert code == 1 and (found["fault"], found["sequence"]) == ("rewritten", last)


def test_a_file_that_is_no_head(trail, tmp_path):
    (tmp_path / "x").write_text("{}")
    result = trail.cli("audit", "verify", "--head", tmp_path / "x", check=False)
    assert result.returncode == 1 and "export --head" in result.stderr


# --- with and without a daemon ---

def test_export(make_daemon):
    daemon = make_daemon()
    for i in range(3):
        daemon.issue(f"client-{i}")
    without = daemon.cli("audit", "export").stdout
    exported = [json.loads(line) for line in without.splitlines()]
    assert [r["sequence"] for r in exported] == list(range(1, len(exported) + 1))
    assert exported[-1]["hash"] == json.loads(daemon.cli("audit", "export", "--head").stdout)["hash"]
    daemon.start()
    running = daemon.cli("audit", "export").stdout
    assert running.startswith(without)
    code, found = verdict(daemon)
    assert code == 0 and found["checked"] == len(running.splitlines())
