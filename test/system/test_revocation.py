"""Revocation: how fast it takes effect, on whom, and that nothing brings anybody back."""
import contextlib
import http.client
import json
import shutil
import socket
import threading
import time

import pytest

from client import Client
from daemon import Identity, Site
from est import csr, enroll, token
from ports import own_port
from waiting import eventually

CLIENTS, REVOKED = 100, 10
STALLED_S = 15  # a second, and a machine that stands still; what waited for the end of a long poll would take longer
PAUSE = 0.02  # seconds from one message of a client to its next: all of them leave some of the machine to the commands


class AdminSocket(http.client.HTTPConnection):
    """The daemon's admin socket: certificates without a process for each."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def call(self, method, path, body=None):
        self.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)


def issue_many(daemon, directory, count):
    directory.mkdir()
    admin = AdminSocket(daemon.ready["admin_socket"])
    identities = []
    for i in range(count):
        issued = admin.call("POST", "/admin/certificates/generate", {"name": f"crowd-{i}", "domain": "example.com"})
        identity = Identity(f"crowd-{i}", directory / f"{i}.pem", directory / f"{i}.key", directory / "ca.pem")
        identity.cert.write_text(issued["certificate_pem"] + issued["issuer_pem"])
        identity.key.write_text(issued["private_key_pem"])
        identity.ca.write_text(issued["ca_pem"])
        identities.append(identity)
    return identities


class Poster(threading.Thread):
    """Posts on one connection until it is cut off or told to stop. last_begun: when the last post that was accepted was
    begun; the answer may be read much later than it was given."""

    def __init__(self, address, identity):
        super().__init__()
        self.client = Client(address, identity)
        self.client.connection.connect()  # one after the other: a hundred handshakes at once might be late for theirs
        self.name = identity.name
        self.accepted, self.last_begun, self.last = 0, 0.0, None
        self.stopping = threading.Event()

    def run(self):
        try:
            while not self.stopping.wait(PAUSE):
                begun = time.monotonic()
                self.last = self.client.post().status
                if self.last != 202:
                    break
                self.accepted += 1
                self.last_begun = begun
        except (OSError, http.client.HTTPException):
            self.last = "cut off"
        self.client.close()


def revoke_some(daemon, addresses, directory):
    """Clients post in a loop, spread over the listeners; ten are revoked, one after the other. The last accepted message
    of each is begun less than a second after its `cert revoke` returned, on a machine that does not stand still
    meanwhile: so it is for most of the ten at least. The others go on."""
    crowd = issue_many(daemon, directory, CLIENTS)
    for address in addresses:
        eventually(lambda a=address: accepts(a, crowd[-1]), "the last of them is known, and so are those before")
    posters = [Poster(addresses[n % len(addresses)], identity) for n, identity in enumerate(crowd)]
    for p in posters:
        p.start()
    try:
        eventually(lambda: all(p.accepted for p in posters), "everybody posts")
        out, others = posters[:REVOKED], posters[REVOKED:]
        returned = {}
        for p in out:
            daemon.cli("cert", "revoke", p.name)
            returned[p.name] = time.monotonic()
        for p in out:
            p.join(60)
            assert not p.is_alive() and p.last in (403, "cut off")
        late = sorted(p.last_begun - returned[p.name] for p in out)
        assert late[REVOKED // 2] < 1 and late[-1] < STALLED_S
        seen = {p.name: p.accepted for p in others}
        eventually(lambda: all(p.accepted > seen[p.name] for p in others), "the others go on")
    finally:
        for p in posters:
            p.stopping.set()
        for p in posters:
            p.join()
    assert {p.last for p in others} == {202}


def test_ten_of_a_hundred_open_connections(site, tmp_path):
    revoke_some(site.daemon, [site.daemon.address()], tmp_path / "crowd")


def test_ten_of_a_hundred_open_connections_to_proxies_of_their_own(make_roles, tmp_path):
    roles = make_roles(proxies=2).start()
    revoke_some(roles.server, [p.address() for p in roles.proxies], tmp_path / "crowd")


def test_a_restored_main_server_does_not_make_its_proxies_forget(make_roles, tmp_path):
    """Not even with its journal lost too: what a proxy knows to be revoked stays out there."""
    roles = make_roles().start()
    one = roles.issue("one", "--domain", "example.com")
    roles.server.stop()
    shutil.copytree(roles.server.data, tmp_path / "backup")
    roles.server.start()
    with Client(roles.address(), one) as client:
        assert client.post().status == 202
        roles.cli("cert", "revoke", "one")
        eventually(lambda: client.post().status == 403, "the proxy knows")
    roles.server.stop()
    restore(tmp_path / "backup", roles.server)
    roles.server.data.with_name(roles.server.data.name + ".revoked").unlink()
    roles.server.start()
    two = roles.issue("two", "--domain", "example.com")
    eventually(lambda: accepts(roles.address(), two), "the proxy follows the restored main server")
    assert not accepts(roles.address(), one)


def accepts(address, identity):
    try:
        with Client(address, identity) as client:
            return client.post().status == 202
    except (OSError, http.client.HTTPException):
        return False


def refused(daemon, identity):
    """Whether the handshake is refused because of revocation."""
    result = daemon.cli("cert", "verify", identity.cert, check=False)
    return result.returncode == 4 and "revoked" in result.stdout


def test_by_name_the_whole_lineage(make_daemon):
    """An overlap keeps the use of the new one from ending the old one first."""
    site = Site(make_daemon(settings={"renew_overlap": "1h"}).start())
    identity = site.new_identity()
    old = Identity("old", identity.cert.with_suffix(".old"), identity.key.with_suffix(".oldkey"), identity.ca)
    shutil.copy(identity.cert, old.cert)
    shutil.copy(identity.key, old.key)
    site.daemon.cli("cert", "renew", identity.name, "--out", site.daemon.certs)
    with Client(site.daemon.address(), old) as first, Client(site.daemon.address(), identity) as second:
        assert [c.post().status for c in (first, second)] == [202, 202]
        assert "2 certificate" in site.daemon.cli("cert", "revoke", identity.name).stdout
        for client in (first, second):
            eventually(lambda c=client: c.post().status == 403, "cut off")
    assert refused(site.daemon, old) and refused(site.daemon, identity)


class Renewer(threading.Thread):
    """Renews with one certificate, again and again, until it is refused."""

    def __init__(self, address, identity, request):
        super().__init__()
        self.client, self.body, self.renewed = Client(address, identity), request, 0

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException), self.client:
            while self.client.request("POST", "/.well-known/est/simplereenroll", self.body,
                                      {"Content-Type": "application/pkcs10"}).status == 200:
                self.renewed += 1


def test_by_name_also_what_is_being_renewed(site, tmp_path):
    """Whoever has a stolen key and renews all the time must not come out with a certificate that stays."""
    request = csr(tmp_path, "/")
    for _ in range(4):
        identity = site.new_identity()
        thieves = [Renewer(site.daemon.address("server"), identity, request) for _ in range(4)]
        for thief in thieves:
            thief.start()
        eventually(lambda t=thieves: any(thief.renewed for thief in t), "renewing")
        site.daemon.cli("cert", "revoke", identity.name)
        for thief in thieves:
            thief.join()
        certificates = site.daemon.json("client", "show", identity.name)["certificates"]
        assert len(certificates) > 1 and {c["status"] for c in certificates} == {"revoked"}


def test_suspended_and_resumed(site):
    with site.client() as client:
        assert client.post().status == 202
        site.daemon.cli("client", "suspend", site.identity.name)
        eventually(lambda: client.post().status == 403, "suspended")
    site.daemon.cli("client", "resume", site.identity.name)
    eventually(lambda: accepts(site.daemon.address(), site.identity), "resumed")


# --- backups ---

def restore(backup, daemon, what="everything"):
    which = "." if what == "everything" else "store"
    shutil.rmtree(daemon.data / which)
    shutil.copytree(backup / which, daemon.data / which)


@pytest.mark.parametrize("what", ["everything", "store"])
def test_a_restored_backup_brings_nobody_back(make_daemon, tmp_path, what):
    daemon = make_daemon()
    one, two, third = (daemon.issue(name) for name in ("one", "two", "third"))
    shutil.copytree(daemon.data, tmp_path / "backup")
    daemon.cli("cert", "revoke", "one", "--reason", "keyCompromise")
    daemon.start()
    daemon.cli("cert", "revoke", "two")
    daemon.stop()
    restore(tmp_path / "backup", daemon, what)
    daemon.start()
    assert refused(daemon, one) and refused(daemon, two) and not refused(daemon, third)
    shown = daemon.json("cert", "show", "one")
    assert (shown["status"], shown["revoke_reason"]) == ("revoked", "keyCompromise")
    again = [r for r in daemon.json("audit", "list", "--action", "certificate.revoke") if r["actor"] == "sealpost"]
    assert sorted(r["target"] for r in again) == sorted(
        daemon.json("cert", "show", name)["serial"] for name in ("one", "two"))
    assert daemon.log().count("revocation.restored") == 2
    with pytest.raises((OSError, http.client.HTTPException)), Client(daemon.address(), one) as client:
        client.post()
    with Client(daemon.address(), third) as client:
        assert client.post().status == 202
    daemon.restart()
    assert daemon.log().count("revocation.restored") == 2


@pytest.mark.parametrize("what", ["everything", "store"])
def test_a_restored_backup_makes_no_token_good_again(make_daemon, tmp_path, what):
    daemon = make_daemon(settings={"server_listen": f"127.0.0.1:{own_port()}"}).start()  # where the tokens send devices
    made = {name: token(daemon, name, *options) for name, *options in (
        ("used",), ("recalled",), ("removed",), ("fleet", "--uses", "3"), ("untouched",))}
    daemon.stop()
    shutil.copytree(daemon.data, tmp_path / "backup")
    daemon.start()
    enroll(made["used"], tmp_path / "1")
    enroll(made["fleet"], tmp_path / "2")
    enroll(made["fleet"], tmp_path / "3")
    daemon.cli("client", "revoke-token", made["recalled"]["token_id"])
    daemon.cli("client", "remove", "removed")
    daemon.stop()
    restore(tmp_path / "backup", daemon, what)
    daemon.start()
    for name, says in (("used", "used already"), ("recalled", "was revoked"), ("removed", "was revoked")):
        refused = enroll(made[name], tmp_path / "again", check=False)
        assert refused.returncode == 4 and says in refused.stderr
    assert {t["name"]: t["status"] for t in daemon.json("client", "tokens")} == {
        "used": "used", "recalled": "revoked", "removed": "revoked", "fleet": "open", "untouched": "open"}
    # What was left is left: one of three uses, and a token that nothing had happened to.
    enroll(made["fleet"], tmp_path / "4")
    assert enroll(made["fleet"], tmp_path / "5", check=False).returncode == 4
    enroll(made["untouched"], tmp_path / "6")
    restored = daemon.json("audit", "list", "--action", "token.restore")
    assert {(r["actor"], r["target"]): r["detail"]["uses"] for r in restored} == {
        ("sealpost", made[name]["token_id"]): uses
        for name, uses in (("used", 1), ("fleet", 2), ("recalled", 0), ("removed", 0))}
    assert daemon.log().count("enroll.token_restored") == 4
    daemon.restart()
    assert daemon.log().count("enroll.token_restored") == 4


def test_a_lost_journal_is_made_anew(make_daemon, tmp_path):
    journal = tmp_path / "elsewhere"
    daemon = make_daemon(settings={"revocation_journal": journal})
    one = daemon.issue("one")
    daemon.cli("cert", "revoke", "one")
    daemon.start()
    serial = daemon.json("cert", "show", "one")["serial"]
    made = token(daemon, "two")
    enroll(made, tmp_path / "two")
    lines = sorted(journal.read_text().splitlines())
    assert serial in lines[0] and lines[1].startswith(f"token {made['token_id']} ") and lines[1].endswith(" used 1")
    daemon.stop()
    journal.unlink()
    daemon.start()
    assert sorted(journal.read_text().splitlines()) == lines and refused(daemon, one)
