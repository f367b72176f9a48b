"""A device's first certificate: tokens, `sealpost enroll`, and the same by curl and openssl as any EST client does it."""
import json
import os
import sqlite3
import stat
import subprocess
import threading
import time
import urllib.request

import pytest

from client import curl
from daemon import run_cli
from est import EST, certificates, csr, enroll, identity, openssl, post, problem, token
from ports import own_port
from waiting import eventually


def audit(daemon, action):
    rows = []
    cursor = ""
    while cursor is not None:
        page = json.loads(subprocess.run(
            ["curl", "-sS", "--unix-socket", daemon.ready["admin_socket"],
             f"http://admin/admin/audit?limit=500&cursor={cursor}" if cursor else "http://admin/admin/audit?limit=500"],
            check=True, capture_output=True).stdout)
        rows += page["rows"]
        cursor = page["next_cursor"]
    return [row for row in rows if row["action"] == action]


def database(daemon):
    return sqlite3.connect(next(daemon.data.rglob("store.db")))


def ms_ago(seconds):
    return int((time.time() - seconds) * 1000)


def certs_of(daemon, name):
    return daemon.json("client", "show", name)["certificates"]


# --- two commands ---

def test_two_commands_and_it_sends(site, tmp_path):
    if site.daemon.proxy is not site.daemon.server:  # where proxies elsewhere are, somebody has to say
        site.daemon.server.configure({"ingest_public_url": site.daemon.ready["ingest"]})
        eventually(lambda: "daemon.reloaded" in site.daemon.server.log(), "the main server knows")
    made = token(site.daemon, "sensor-1")
    result = run_cli("enroll", made["token"], "--out", tmp_path)
    device = identity("sensor-1", tmp_path)
    assert stat.S_IMODE(os.stat(device.key).st_mode) == 0o600
    assert not list(tmp_path.glob("*.new"))
    send = next(line for line in result.stdout.splitlines() if "sealpost send" in line).split()[1:-2]
    sent = run_cli(*send, "+4915112345678", "hello")
    message_id = sent.stdout.split()[0]
    eventually(lambda: message_id in site.daemon.delivered(), "the message is delivered")
    assert [m["client_id"] for m in site.daemon.messages() if m["message_id"] == message_id] == ["sensor-1"]


@pytest.mark.parametrize("kind", ["ec:P-384", "ed25519", "rsa:2048"])
def test_every_kind_of_key(shared, tmp_path, kind):
    name = "key-" + kind.replace(":", "-")
    device = enroll(token(shared.daemon, name), tmp_path, "--key", kind)
    assert shared.daemon.cli("cert", "verify", device.cert, "--role", "client")


def test_it_works_without_any_data_directory(shared, tmp_path):
    made = token(shared.daemon, "bare")
    env = {"HOME": "/nonexistent", "SEALPOST_DATA": "/nonexistent/data"}
    run_cli("enroll", "-", "--out", tmp_path, input=made["token"] + "\n", env=env)
    assert identity("bare", tmp_path).cert.exists()


# --- refusals ---

def test_used_token_is_refused(shared, tmp_path):
    made = token(shared.daemon, "used-1")
    enroll(made, tmp_path / "first")
    again = enroll(made, tmp_path / "second", check=False)
    assert again.returncode == 4
    assert "used already" in again.stderr and "sealpost client token used-1" in again.stderr
    assert not list((tmp_path / "second").iterdir())
    rows = [row for row in audit(shared.daemon, "client.enroll") if row["target"] == "used-1"]
    assert [(row["result"], row["detail"]["reason"]) for row in rows] == [("refused", "used")]
    # On the device that has it, nothing is overwritten either.
    before = identity("used-1", tmp_path / "first").key.read_bytes()
    there = enroll(made, tmp_path / "first", check=False)
    assert there.returncode == 1 and "is there already" in there.stderr
    assert identity("used-1", tmp_path / "first").key.read_bytes() == before


def test_expired_token_is_refused(make_daemon, tmp_path):
    daemon = make_daemon(settings={"enroll_valid": "1m"})
    daemon.server.settings["public_url"] = "https://localhost:1"
    made = token(daemon, "late")
    daemon.start()
    daemon.stop()
    with database(daemon) as db:
        db.execute("UPDATE tokens SET expires_ms = ?", (ms_ago(1),))
    daemon.start()
    late = enroll(made, tmp_path / "out", "--url", daemon.ready["server"], check=False)
    assert late.returncode == 4 and "has expired" in late.stderr
    assert daemon.json("client", "tokens", "late")[0]["status"] == "expired"


def test_tokens_that_ended_long_ago_are_forgotten(make_daemon, tmp_path):
    daemon = make_daemon(settings={"enroll_keep": "30d"}).start()
    made = {name: token(daemon, name) for name in ("open", "partly", "used", "used-lately", "expired", "revoked")}
    for name in ("used", "used-lately"):
        enroll(made[name], tmp_path / name)
    daemon.cli("client", "revoke-token", made["revoked"]["token_id"])
    daemon.stop()
    with database(daemon) as db:
        long_ago = ms_ago(31 * 24 * 3600)
        for name, column in (("used", "used_ms"), ("expired", "expires_ms"), ("revoked", "revoked_ms")):
            db.execute(f"UPDATE tokens SET {column} = ? WHERE name = ?", (long_ago, name))
        db.execute("UPDATE tokens SET uses = 1, uses_max = 2, used_ms = ? WHERE name = 'partly'", (long_ago,))
    daemon.start()
    eventually(lambda: {t["name"] for t in daemon.json("client", "tokens")} == {"open", "partly", "used-lately"},
               "what ended long ago is gone")
    [row] = eventually(lambda: audit(daemon, "token.purge"), "the trail says so")
    with urllib.request.urlopen(daemon.server.ready["metrics"] + "/metrics") as answer:
        assert "\nsealpost_enrollment_tokens_purged_total 3\n" in answer.read().decode()
    assert (row["actor"], row["result"], row["detail"]) == ("sealpost", "ok", {"tokens": 3})
    # What was enrolled with them stays, and a token that is gone is none.
    assert [c["status"] for c in certs_of(daemon, "used")] == ["valid"]
    gone = enroll(made["used"], tmp_path / "again", "--url", daemon.ready["server"], check=False)
    assert gone.returncode == 4 and "not known" in gone.stderr
    daemon.stop()
    with database(daemon) as db:
        assert db.execute("SELECT count(*) FROM token_uses").fetchone() == (1,)


def test_revoked_token_is_refused(shared, tmp_path):
    made = token(shared.daemon, "recalled")
    assert "revoked" in shared.daemon.cli("client", "revoke-token", made["token_id"]).stdout
    refused = enroll(made, tmp_path, check=False)
    assert refused.returncode == 4 and "was revoked" in refused.stderr
    assert shared.daemon.cli("client", "revoke-token", "0" * 16, check=False).returncode == 3


def test_wrong_secret_and_wrong_pin_are_refused(shared, make_daemon, tmp_path):
    made = token(shared.daemon, "mine")
    other = make_daemon(fresh=True).start()
    theirs = token(other, "mine")
    # The right server, but a token that another one made: its pin gives it away before the secret is sent.
    refused = enroll(theirs, tmp_path, "--url", shared.daemon.ready["server"], check=False)
    assert refused.returncode == 4 and "nothing was sent" in refused.stderr
    assert not [row for row in audit(shared.daemon, "client.enroll") if row["target"] == "mine"]
    # A secret that is not known.
    status, headers, body = post(made["url"], "simpleenroll", csr(tmp_path), shared.identity.ca,
                                 "-u", "mine:" + theirs["secret"])
    assert status == 401 and headers["www-authenticate"].startswith("basic ")
    assert problem(body)["code"] == "token_refused" and "not known" in problem(body)["detail"]


@pytest.mark.parametrize("text", ["", "hello", "sealpost-enroll:", "sealpost-enroll:e30", "sealpost-enroll:!!!"])
def test_malformed_tokens_are_refused(tmp_path, text):
    result = run_cli("enroll", text, "--out", tmp_path, check=False)
    assert result.returncode == 1 and "enrolment token" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_keeps_the_key(make_daemon, tmp_path):
    daemon = make_daemon(settings={"server_listen": f"127.0.0.1:{own_port()}"}).start()
    made = token(daemon, "patient")
    url = daemon.ready["server"]
    daemon.stop()
    away = enroll(made, tmp_path, check=False)
    assert away.returncode == 5 and url in away.stderr
    key = (tmp_path / "patient.key.new").read_bytes()
    daemon.start()
    device = enroll(made, tmp_path)
    assert device.key.read_bytes() == key


def test_suspended_and_removed_clients_get_nothing(shared, tmp_path):
    made = token(shared.daemon, "wavering")
    shared.daemon.cli("client", "suspend", "wavering")
    refused = enroll(made, tmp_path, check=False)
    assert refused.returncode == 4 and "suspended" in refused.stderr
    shared.daemon.cli("client", "resume", "wavering")
    device = enroll(made, tmp_path)
    assert "1 certificates revoked" in shared.daemon.cli("client", "remove", "wavering").stdout
    assert "wavering" not in shared.daemon.cli("client", "list").stdout
    with pytest.raises(Exception):
        shared.client(device).get("/api/v1/health")
    assert shared.daemon.cli("client", "token", "wavering", check=False).returncode == 1
    # It may come back, in its domain.
    assert shared.daemon.cli("client", "add", "wavering", "--domain", "other", check=False).returncode == 1
    enroll(token(shared.daemon, "wavering"), tmp_path, "--force")


def test_adding_twice_is_refused(shared):
    token(shared.daemon, "twice")
    result = shared.daemon.cli("client", "add", "twice", "--domain", "example.com", check=False)
    assert result.returncode == 1 and "sealpost client token twice" in result.stderr


@pytest.mark.parametrize("args, says", [
    (("client", "add", "brief", "--valid", "2s"), "--valid: a token lasts from 1m to 365d"),
    (("client", "add", "brief", "--valid", "400d"), "--valid: a token lasts from 1m to 365d"),
    (("client", "add", "brief", "--role", "king"), "client add: role: "),
    (("cert", "issue", "brief", "--key", "dsa"), "cert issue: key_type: "),
])
def test_mistakes_are_told_in_the_words_of_the_command(shared, args, says):
    result = shared.daemon.cli(*args, check=False)
    assert result.returncode == 1 and says in result.stderr


def test_guessing_is_held_off(make_daemon, tmp_path):
    site = make_daemon(settings={"enroll_refusals": 3}).start()
    made = token(site, "guessed")
    request = csr(tmp_path)
    ca = site.data / "ca" / "ca.pem"
    statuses = [post(made["url"], "simpleenroll", request, ca, "-u", f"x:{'A' * 43}")[0] for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    # Nobody from there is listened to, until the window is over.
    held_off = enroll(made, tmp_path / "out", check=False)
    assert held_off.returncode == 5 and "too many refused" in held_off.stderr
    assert len(audit(site, "client.enroll")) == 3


# --- any EST client ---

def test_curl_and_openssl_are_enough(shared, tmp_path):
    made = token(shared.daemon, "est-1")
    url = made["url"]
    answer = curl(url + EST + "/cacerts", None, ca=shared.identity.ca)
    assert answer.status == 200
    assert answer.header("content-type") == "application/pkcs7-mime; smime-type=certs-only"
    (tmp_path / "ca.pem").write_text(certificates(answer.body))
    assert curl(url + EST + "/csrattrs", None, ca=shared.identity.ca).status == 204
    # Subject and extensions of the request are nobody's business.
    request = csr(tmp_path, "/O=Evil/CN=admin", kind=("rsa:2048",))
    status, headers, body = post(url, "simpleenroll", request, tmp_path / "ca.pem", "-u", f"est-1:{made['secret']}")
    assert status == 200 and headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    (tmp_path / "leaf.pem").write_text(certificates(body))
    text = openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text").decode()
    assert "CN = est-1" in text and "Evil" not in text and "/client/example.com/est-1" in text
    openssl("verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", tmp_path / "leaf.pem")


@pytest.mark.parametrize("body, media, status", [
    (b"not base64 at all!", "application/pkcs10", 400),
    (b"aGVsbG8=", "application/pkcs10; charset=us-ascii", 400),
    (b"", "application/pkcs10", 400),
    (None, "application/json", 415),
])
def test_bad_requests_do_not_cost_the_token(shared, tmp_path, body, media, status):
    made = token(shared.daemon, f"clumsy-{status}-{len(body or b'')}")
    login = ["-u", f"x:{made['secret']}"]
    request = csr(tmp_path)
    answer = post(made["url"], "simpleenroll", request if body is None else body, shared.identity.ca, *login, media=media)
    assert answer[0] == status
    assert post(made["url"], "simpleenroll", request, shared.identity.ca, *login)[0] == 200


@pytest.mark.parametrize("kind", [("rsa:1024",), ("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1")])
def test_weak_keys_are_refused(shared, tmp_path, kind):
    made = token(shared.daemon, f"weak-{len(kind)}")
    status, _, body = post(made["url"], "simpleenroll", csr(tmp_path, kind=kind), shared.identity.ca,
                           "-u", f"x:{made['secret']}")
    assert status == 400 and "CSR" in problem(body)["errors"][0]["detail"]


@pytest.mark.parametrize("options", [[], ["-H", "Authorization: Bearer abc"], ["-H", "Authorization: Basic %%%"],
                                     ["-H", "Authorization: Basic aGVsbG8="]])
def test_without_a_token_it_is_asked_for(shared, tmp_path, options):
    status, headers, _ = post(shared.daemon.ready["server"], "simpleenroll", csr(tmp_path), shared.identity.ca, *options)
    assert status == 401 and headers["www-authenticate"].startswith("basic ")


# --- once, and only once ---

def test_twenty_at_once_get_one_certificate(site, tmp_path):
    made = token(site.daemon, "contested")
    requests = []
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        requests.append(csr(tmp_path / str(i)))
    statuses = []
    barrier = threading.Barrier(20)

    def run(request):
        barrier.wait()
        statuses.append(post(made["url"], "simpleenroll", request, site.identity.ca, "-u", f"x:{made['secret']}")[0])

    threads = [threading.Thread(target=run, args=(r,)) for r in requests]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert statuses.count(200) == 1 and statuses.count(401) == 19
    assert len(certs_of(site.daemon, "contested")) == 1


def test_the_same_key_gets_the_same_certificate(make_daemon, tmp_path):
    """An answer that was lost, and twenty at once: one certificate, also after a restart."""
    daemon = make_daemon().start()
    made = token(daemon, "lossy")
    request = csr(tmp_path)
    ca = daemon.data / "ca" / "ca.pem"
    bodies = []

    def run():
        status, _, body = post(daemon.ready["server"], "simpleenroll", request, ca, "-u", f"x:{made['secret']}")
        assert status == 200
        bodies.append(body)

    threads = [threading.Thread(target=run) for _ in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    daemon.restart()
    run()
    assert len(bodies) == 21 and len(set(bodies)) == 1
    certs = certs_of(daemon, "lossy")
    assert len(certs) == 1
    daemon.cli("cert", "revoke", "lossy")
    status, _, body = post(daemon.ready["server"], "simpleenroll", request, ca, "-u", f"x:{made['secret']}")
    assert status == 401 and "was revoked" in problem(body)["detail"]


def test_several_uses(shared, tmp_path):
    made = token(shared.daemon, "fleet", "--uses", "2", "--valid", "30m")
    for i in range(2):
        enroll(made, tmp_path / str(i))
    assert enroll(made, tmp_path / "2", check=False).returncode == 4
    assert len(certs_of(shared.daemon, "fleet")) == 2


def test_other_roles_enrol_too(shared, tmp_path):
    made = token(shared.daemon, "edge-9", "--role", "proxy", "--names", "edge.example.com,192.0.2.7")
    device = enroll(made, tmp_path)
    text = openssl("x509", "-in", device.cert, "-noout", "-text").decode()
    assert "DNS:edge.example.com" in text and "IP Address:192.0.2.7" in text and "/proxy/" in text
    refused = shared.daemon.cli("client", "add", "x", "--domain", "example.com", "--names", "a.example", check=False)
    assert refused.returncode == 1 and "names" in refused.stderr


def test_secrets_are_kept_nowhere(site, tmp_path):
    made = token(site.daemon, "secretive")
    enroll(made, tmp_path / "out")
    enroll(made, tmp_path / "again", check=False)
    site.daemon.stop()
    for path in site.daemon.directory.rglob("*"):
        if path.is_file():
            assert made["secret"].encode() not in path.read_bytes(), path
