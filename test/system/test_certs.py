"""Certificates from the first to the last day: issue, renew, verify, expire, revoke; and what others see of them."""
import concurrent.futures
import datetime
import json
import re
import subprocess
import threading
import time
import urllib.request

import pytest

from client import Client, curl
from daemon import CLIENT, CommandFailed, Identity, Site, craft_cert, run_cli
from test_identity import crafted
from waiting import eventually

DAY = datetime.timedelta(days=1)


def openssl(*args, check=True):
    return subprocess.run(["openssl", *map(str, args)], check=check, capture_output=True, text=True)


def crl_of(daemon, path):
    daemon.cli("ca", "crl", "--out", path)
    return path


def crl_number(path):
    return int(openssl("crl", "-in", path, "-noout", "-crlnumber").stdout.split("=")[1], 16)


def openssl_accepts(identity, crl):
    return openssl("verify", "-x509_strict", "-crl_check", "-CAfile", identity.ca, "-CRLfile", crl, identity.cert,
                   check=False).returncode == 0


def serial_of(identity):
    return openssl("x509", "-in", identity.cert, "-noout", "-serial").stdout.strip().split("=")[1].lower()


# --- what the CA publishes ---

def test_openssl_accepts_what_is_issued_and_refuses_what_is_revoked(site, tmp_path):
    good, bad = site.new_identity(), site.new_identity()
    before = crl_of(site.daemon, tmp_path / "before.pem")
    assert openssl_accepts(good, before) and openssl_accepts(bad, before)
    site.daemon.cli("cert", "revoke", bad.name, "--reason", "keyCompromise")
    after = crl_of(site.daemon, tmp_path / "after.pem")
    assert openssl_accepts(good, after)
    assert not openssl_accepts(bad, after)
    text = openssl("crl", "-in", after, "-noout", "-text").stdout
    assert "Key Compromise" in text
    assert serial_of(bad).upper() in text


def test_crl_number_grows_over_restarts_and_offline(make_daemon, tmp_path):
    daemon = make_daemon().start()
    numbers = []
    for step in range(4):
        daemon.issue(f"r{step}", "--domain", "example.com")
        daemon.cli("cert", "revoke", f"r{step}")
        numbers.append(crl_number(crl_of(daemon, tmp_path / "crl.pem")))
        if step == 1:
            daemon.stop()
        if step == 2:
            daemon.start()
    assert numbers == sorted(set(numbers))
    text = openssl("crl", "-in", tmp_path / "crl.pem", "-noout", "-text").stdout
    assert text.count("Serial Number:") == 4, "a list has all that were revoked"


def test_crl_lasts_a_week_and_the_metric_says_so(shared, tmp_path):
    crl = crl_of(shared.daemon, tmp_path / "crl.pem")
    times = dict(line.split("=") for line in
                 openssl("crl", "-in", crl, "-noout", "-lastupdate", "-nextupdate").stdout.splitlines())
    start, end = (datetime.datetime.strptime(times[key], "%b %d %H:%M:%S %Y GMT")
                  for key in ("lastUpdate", "nextUpdate"))
    assert end - start == 7 * DAY
    with urllib.request.urlopen(shared.daemon.server.ready["metrics"] + "/metrics") as answer:
        text = answer.read().decode()
    shown = float(re.search(r'expiry_timestamp_seconds\{certificate="crl"\} (\S+)', text)[1])
    assert shown == end.replace(tzinfo=datetime.timezone.utc).timestamp()


@pytest.mark.parametrize("name, content_type, form", [("crl.pem", "application/x-pem-file", "PEM"),
                                                      ("crl.der", "application/pkix-crl", "DER")])
def test_crl_over_http_needs_no_certificate(shared, tmp_path, name, content_type, form):
    url = f"{shared.daemon.ready['server']}/ca/{name}"
    answer = curl(url, ca=shared.identity.ca)
    assert answer.status == 200
    assert answer.header("content-type") == content_type
    path = tmp_path / name
    path.write_bytes(answer.body)
    checked = openssl("crl", "-in", path, "-inform", form, "-noout", "-CAfile", shared.identity.ca)
    assert "verify OK" in checked.stdout + checked.stderr
    etag = answer.header("etag")
    for known, status in ((etag, 304), (f'"other", W/{etag}', 304), ("*", 304), ('"other"', 200), (etag[:-1], 200)):
        again = curl(url, None, "-H", f"If-None-Match: {known}", ca=shared.identity.ca)
        assert (again.status, not again.body) == (status, status == 304)


def test_getting_the_list_does_not_sign_one(shared):
    url = shared.daemon.ready["server"] + "/ca/crl.der"
    assert len({curl(url, ca=shared.identity.ca).body for _ in range(3)}) == 1


def test_revocation_changes_the_etag(site):
    url = site.daemon.ready["server"] + "/ca/crl.pem"
    before = curl(url, ca=site.identity.ca)
    site.daemon.cli("cert", "revoke", site.new_identity().name)
    after = curl(url, None, "-H", f"If-None-Match: {before.header('etag')}", ca=site.identity.ca)
    assert after.status == 200 and after.header("etag") != before.header("etag")


def test_crl_is_signed_anew_where_it_is_lost_damaged_or_lacks_a_revocation(make_daemon, tmp_path):
    daemon = make_daemon()
    daemon.issue("leaver")
    path = daemon.data / "ca" / "crl.der"
    without = path.read_bytes()
    daemon.cli("cert", "revoke", "leaver")
    for break_it in (path.unlink, lambda: path.write_bytes(b"no list"), lambda: path.write_bytes(without)):
        break_it()
        text = openssl("crl", "-in", crl_of(daemon, tmp_path / "crl.pem"), "-noout", "-text").stdout
        assert text.count("Serial Number:") == 1


def test_export_root(shared, tmp_path):
    root = tmp_path / "root.pem"
    root.write_text(shared.daemon.cli("ca", "export-root").stdout)
    assert root.read_text().count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE KEY" not in root.read_text()
    assert openssl("verify", "-CAfile", root, "-untrusted", shared.identity.cert, shared.identity.cert).returncode == 0


# --- cert verify ---

def verdict(daemon, *args):
    result = daemon.cli("cert", "verify", *args, "--json", check=False)
    assert result.returncode in (0, 4), result.stderr
    answer = json.loads(result.stdout)
    assert answer["accepted"] == (result.returncode == 0)
    return answer


def failed(answer):
    return [step["name"] for step in answer["steps"] if step["verdict"] == "failed"]


def test_verify_accepts_what_the_listeners_accept(shared):
    answer = verdict(shared.daemon, shared.identity.cert, "--role", "client")
    assert answer["accepted"] and not failed(answer)
    assert answer["identity"]["name"] == CLIENT
    assert {"chain", "time", "role", "registry"} <= {step["name"] for step in answer["steps"]}
    with shared.client() as client:
        assert client.post().status == 202


def test_verify_prints_a_line_for_each_rule(shared):
    result = shared.daemon.cli("cert", "verify", shared.identity.cert, "--role", "proxy", check=False)
    assert result.returncode == 4
    *steps, empty, last = result.stdout.splitlines()
    assert empty == "" and last.startswith("refused: role")
    assert len({line.index(line.split()[1]) for line in steps}) == 1, "aligned"
    assert [line.split()[1] for line in steps if line.startswith("FAILED")] == ["role"]


def test_verify_of_the_revoked_running_and_not(site):
    identity = site.new_identity()
    site.daemon.cli("cert", "revoke", identity.name)
    for _ in range(2):
        answer = verdict(site.daemon, identity.cert)
        assert (answer["outcome"], failed(answer)) == ("revoked", ["registry"])
        assert verdict(site.daemon, site.identity.cert)["accepted"]
        if site.daemon.process:
            site.daemon.stop()


def test_verify_with_another_anchor_asks_no_registry(shared, tmp_path, make_daemon):
    other = make_daemon(fresh=True)
    other.cli("init")
    theirs = other.issue("stranger", "--domain", "example.com")
    assert verdict(shared.daemon, theirs.cert)["outcome"] == "unknown_ca"
    answer = verdict(shared.daemon, theirs.cert, "--ca", theirs.ca)
    assert answer["accepted"]
    assert "registry" not in {step["name"] for step in answer["steps"]}
    assert verdict(shared.daemon, shared.identity.cert, "--ca", theirs.ca)["outcome"] == "unknown_ca"


def test_verify_needs_the_issuer_from_somewhere(shared, tmp_path):
    root, leaf, issuing = tmp_path / "root.pem", tmp_path / "leaf.pem", shared.daemon.data / "ca" / "issuing.pem"
    root.write_text(shared.daemon.cli("ca", "export-root").stdout)
    leaf.write_text(openssl("x509", "-in", shared.identity.cert).stdout)
    assert verdict(shared.daemon, leaf, "--ca", root)["outcome"] == "unknown_ca"
    assert verdict(shared.daemon, leaf, "--ca", root, "--untrusted", issuing)["accepted"]
    der = tmp_path / "leaf.der"
    openssl("x509", "-in", leaf, "-outform", "DER", "-out", der)
    assert verdict(shared.daemon, der, "--ca", shared.identity.ca)["accepted"]


def test_verify_at_another_time(shared):
    ca = ("--ca", shared.identity.ca)
    assert verdict(shared.daemon, shared.identity.cert, *ca, "--at", "2001-01-01T00:00:00Z")["outcome"] == "not_yet_valid"
    answer = verdict(shared.daemon, shared.identity.cert, *ca, "--at", "2199-01-01T00:00:00Z")
    assert (answer["outcome"], failed(answer)) == ("expired", ["time"])


@pytest.mark.up_only("proxies elsewhere have certificates that somebody issued to them")
def test_the_listeners_certificates_end_when_others_are_in_use(make_daemon):
    """Names were added, then the issuing CA was rotated: of each listener one certificate is left."""
    daemon = make_daemon(settings={"tls_names": "broker.example.com"}).start()

    def own():
        return sorted((c["name"], c["status"], c.get("revoke_reason")) for c in daemon.json("cert", "list")
                      if c["role"] in ("server", "proxy"))
    ended, valid = [(n, "revoked", "superseded") for n in ("proxy", "server")], [
        (n, "valid", None) for n in ("proxy", "server")]
    eventually(lambda: own() == sorted(ended + valid), "those without the name have ended")
    daemon.cli("ca", "rotate-issuing")
    eventually(lambda: own() == sorted(2 * ended + valid), "those of the old issuer have ended")
    assert not daemon.cli("ca", "crl", check=False).returncode
    with Client(daemon.address(), daemon.issued(CLIENT)) as client:
        assert client.post().status == 202


def test_verify_with_a_revocation_list(site, tmp_path):
    identity = site.new_identity()
    crl = crl_of(site.daemon, tmp_path / "crl.pem")
    accepted = verdict(site.daemon, identity.cert, "--ca", identity.ca, "--crl", crl)
    assert accepted["accepted"] and {"crl": "ok"}.items() <= {s["name"]: s["verdict"] for s in accepted["steps"]}.items()
    old = (datetime.datetime.utcnow() + 8 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert failed(verdict(site.daemon, identity.cert, "--ca", identity.ca, "--crl", crl, "--at", old)) == ["crl"]
    site.daemon.cli("cert", "revoke", identity.name)
    crl_of(site.daemon, crl)
    revoked = verdict(site.daemon, identity.cert, "--ca", identity.ca, "--crl", crl)
    assert revoked["outcome"] == "revoked" and failed(revoked) == ["crl"]
    # Once there is another issuing CA, the file has a list of each.
    site.daemon.cli("ca", "rotate-issuing")
    later = site.new_identity()
    site.daemon.cli("ca", "crl", "--out", crl)
    assert crl.read_text().count("BEGIN X509 CRL") == 2
    assert verdict(site.daemon, identity.cert, "--ca", identity.ca, "--crl", crl)["outcome"] == "revoked"
    assert verdict(site.daemon, later.cert, "--ca", later.ca, "--crl", crl)["accepted"]


@pytest.mark.parametrize("content", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_verify_refuses_what_is_no_certificate(shared, tmp_path, content):
    path = tmp_path / "bad.pem"
    path.write_text(content)
    assert failed(verdict(shared.daemon, path, "--ca", shared.identity.ca)) == ["encoding"]


@pytest.mark.parametrize("args, code", [
    (("/nonexistent.pem",), 3), ((), 2), (("a.pem", "--role", "emperor"), 2), (("a.pem", "--at", "yesterday"), 2)])
def test_verify_exit_codes(shared, args, code):
    assert shared.daemon.cli("cert", "verify", *args, check=False).returncode == code


def test_verify_names_each_crafted_flaw(shared, tmp_path):
    """One thing wrong with each: the outcome that the listeners count, and the rule that says why."""
    rows = [line.split("\t") for line in subprocess.run([craft_cert(), "--list"], check=True, capture_output=True,
                                                        text=True).stdout.splitlines()]
    wrong = []
    for flaw, of, rule, outcome in rows:
        # With --ca any trust domain will do.
        if of != "leaf" or rule == "trust_domain":
            continue
        cert, _ = crafted(shared.daemon, tmp_path, flaw)
        answer = verdict(shared.daemon, cert, "--ca", shared.identity.ca)
        if answer["outcome"] != outcome or (rule != "-" and rule not in failed(answer)):
            wrong.append((flaw, outcome, rule, answer["outcome"], failed(answer)))
    assert not wrong


# --- cert renew, expiring, show, revoke ---

def test_renewal_works_beside_the_old_one(make_daemon, tmp_path):
    """For as long as the overlap lasts."""
    site = Site(make_daemon(settings={"renew_overlap": "1h"}).start())
    old = site.new_identity()
    site.daemon.cli("cert", "renew", old.name, "--out", tmp_path / "new")
    new = Identity(old.name, *(tmp_path / "new" / f for f in (f"{old.name}.pem", f"{old.name}.key", "ca.pem")))
    assert new.key.read_text() != old.key.read_text()
    assert new.key.stat().st_mode & 0o777 == 0o600
    for identity in (old, new):
        with site.client(identity) as client:
            assert client.post().status == 202
    rows = [row for row in site.daemon.json("cert", "list", "--name", old.name)]
    assert {(row["role"], row["domain"], row["status"]) for row in rows} == {("client", "example.com", "valid")}
    assert {row["serial"] for row in rows} == {serial_of(old), serial_of(new)}
    assert site.daemon.json("cert", "show", old.name)["serial"] == serial_of(new)


def test_renewal_of_a_csr_takes_its_key_and_nothing_else(site, tmp_path):
    identity, csr = site.new_identity(), tmp_path / "new.csr"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            tmp_path / "new.key", "-subj", "/CN=root", "-out", csr)
    site.daemon.cli("cert", "renew", identity.name, "--csr", csr, "--days", 10, "--out", tmp_path)
    assert not (tmp_path / f"{identity.name}.key").exists()
    new = Identity(identity.name, tmp_path / f"{identity.name}.pem", tmp_path / "new.key", tmp_path / "ca.pem")
    with site.client(new) as client:
        assert client.post().json["client_id"] == identity.name


def test_renewal_keeps_the_names_of_a_server(shared, tmp_path):
    def names(path):
        return openssl("x509", "-in", path, "-noout", "-ext", "subjectAltName").stdout
    shared.daemon.cli("cert", "renew", "server", "--out", tmp_path)
    assert names(tmp_path / "server.pem") == names(shared.daemon.data / "tls" / "server.pem")


def test_what_was_revoked_is_not_renewed(site, tmp_path):
    identity = site.new_identity()
    site.daemon.cli("cert", "revoke", identity.name)
    assert site.daemon.cli("cert", "renew", identity.name, "--out", tmp_path, check=False).returncode == 1
    assert site.daemon.cli("cert", "renew", "nobody", "--out", tmp_path, check=False).returncode == 3
    assert not list(tmp_path.glob("*.key"))


def test_expiring_lists_what_is_in_use_soonest_first(site):
    for name, days in (("late", 29), ("soon", 3), ("gone", 4), ("far", 60)):
        site.daemon.issue(name, "--days", days)
    site.daemon.cli("cert", "revoke", "gone")
    def expiring(*args):
        return [row["name"] for row in site.daemon.json("cert", "expiring", *args)]
    assert expiring() == expiring("--within", "30d") == ["soon", "late"]
    assert expiring("--within", "100h") == ["soon"]
    assert expiring("--within", "9w") == ["soon", "late", "far"]
    assert site.daemon.cli("cert", "expiring", "--within", "soon", check=False).returncode == 2


def test_a_registered_name_comes_before_a_serial(site):
    victim = site.new_identity()
    namesake = site.daemon.issue(serial_of(victim))
    assert site.daemon.json("cert", "show", namesake.name)["serial"] == serial_of(namesake)
    assert site.daemon.json("cert", "show", "--serial", namesake.name)["name"] == victim.name
    site.daemon.cli("cert", "revoke", namesake.name)
    assert verdict(site.daemon, victim.cert)["accepted"]
    assert not verdict(site.daemon, namesake.cert)["accepted"]


def test_revoking_one_serial_leaves_the_others_of_the_name(site, tmp_path):
    old = site.new_identity()
    site.daemon.cli("cert", "renew", old.name, "--out", tmp_path)
    site.daemon.cli("cert", "revoke", serial_of(old), "--reason", "superseded")
    rows = {row["serial"]: row for row in site.daemon.json("cert", "list", "--name", old.name)}
    row = rows.pop(serial_of(old))
    assert (row["status"], row["revoke_reason"]) == ("revoked", "superseded")
    assert {"serial", "name", "domain", "role", "status", "issued_at", "not_before", "not_after", "revoked_at",
            "revoke_reason"} <= row.keys()
    assert [other["status"] for other in rows.values()] == ["valid"]
    assert site.daemon.cli("cert", "revoke", old.name, "--reason", "boredom", check=False).returncode == 1


# --- keys at rest ---

def test_keys_are_encrypted_with_a_passphrase(make_daemon, tmp_path):
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    passphrase.chmod(0o600)
    daemon = make_daemon(fresh=True, settings={"key_passphrase_file": passphrase})
    daemon.cli("init", "--set", f"key_passphrase_file={passphrase}")
    for name in ("root.key", "issuing.key"):
        assert (daemon.data / "ca" / name).read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    daemon.start()
    identity = daemon.issue("a", "--domain", "example.com")
    with Client(daemon.address(), identity) as client:
        assert client.post().status == 202
    daemon.stop()
    refused = daemon.cli("cert", "list", check=False)
    assert refused.returncode == 1 and "key_passphrase_file" in refused.stderr


# --- revocation under way ---

class Poster:
    """One keep-alive connection that posts in a loop, and remembers when the last post that was accepted was begun."""

    def __init__(self, site, identity):
        self.name = identity.name
        self.client = site.client(identity)
        self.accepted, self.last_begun, self.ended_with = 0, 0.0, None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        with self.client as client:
            while not self.stopping.is_set():
                begun = time.monotonic()
                answer = client.post()
                if answer.status != 202:
                    self.ended_with = answer.json["code"]
                    return
                self.accepted += 1
                self.last_begun = begun


def test_revocation_cuts_off_open_connections_and_nobody_else(site):
    identities = [site.new_identity() for _ in range(5)]
    posters = [Poster(site, identities[i % len(identities)]) for i in range(20)]
    try:
        eventually(lambda: all(p.accepted > 3 for p in posters), "all connections post")
        returned = {}
        for identity in identities[:2]:
            site.daemon.cli("cert", "revoke", identity.name)
            returned[identity.name] = time.monotonic()
        out = [p for p in posters if p.name in returned]
        stay = [p for p in posters if p.name not in returned]
        eventually(lambda: all(p.ended_with for p in out), "the revoked are refused")
        before = [p.accepted for p in stay]
        eventually(lambda: all(p.accepted > n + 3 for p, n in zip(stay, before)), "the others go on")
    finally:
        for p in posters:
            p.stopping.set()
        for p in posters:
            p.thread.join()
    assert {p.ended_with for p in out} == {"certificate_revoked"}
    assert all(p.last_begun < returned[p.name] for p in out), "nothing that was begun afterwards"
    assert {p.ended_with for p in stay} == {None}


def test_revocation_over_the_admin_api_by_many_at_once(site, tmp_path):
    """They share signatures; none may be left out of the list."""
    names = [site.new_identity().name for _ in range(6)]
    revokers = [threading.Thread(target=site.daemon.cli, args=("cert", "revoke", name)) for name in names]
    for t in revokers:
        t.start()
    for t in revokers:
        t.join()
    text = openssl("crl", "-in", crl_of(site.daemon, tmp_path / "crl.pem"), "-noout", "-text").stdout
    assert text.count("Serial Number:") == len(names)


# --- suspension ---

def test_a_suspended_client_is_out_until_it_is_resumed(site):
    other = site.new_identity()
    with site.client() as client:
        assert client.post().status == 202
        site.daemon.cli("client", "suspend", CLIENT)
        assert client.post().status == 403
    assert verdict(site.daemon, site.identity.cert)["outcome"] == "suspended"
    with site.client(other) as client:
        assert client.post().status == 202
    assert {row["name"]: row["status"] for row in site.daemon.json("client", "list")} == {
        CLIENT: "suspended", other.name: "active"}
    for _ in range(2):
        site.daemon.cli("client", "resume", CLIENT)
    with site.client() as client:
        assert client.post().status == 202
    assert site.daemon.cli("client", "suspend", "nobody", check=False).returncode == 3


def test_a_name_that_is_taken_or_was_removed_gets_no_certificate(site, tmp_path):
    identity, daemon = site.new_identity(), site.daemon
    issue = ["cert", "issue", identity.name, "--out", tmp_path]
    other = daemon.cli(*issue, "--domain", "elsewhere.example", check=False)
    assert other.returncode == 1 and "in another domain, 'example.com'" in other.stderr
    daemon.cli("client", "remove", identity.name)
    gone = daemon.cli(*issue, "--domain", "example.com", check=False)
    assert gone.returncode == 1 and f"client add {identity.name} --domain example.com" in gone.stderr
    assert [c["status"] for c in daemon.json("client", "show", identity.name)["certificates"]] == ["revoked"]
    daemon.cli("client", "add", identity.name, "--domain", "example.com")
    daemon.cli(*issue, "--domain", "example.com")
    assert verdict(daemon, tmp_path / f"{identity.name}.pem")["accepted"]


def test_nothing_is_issued_that_could_not_be_saved(shared, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert shared.daemon.cli("cert", "issue", "unsaved", "--out", out, check=False).returncode != 0
    # Found too late: the command says what is to be done.
    (tmp_path / "unsaved.pem").mkdir()
    late = shared.daemon.cli("cert", "issue", "unsaved", "--out", tmp_path, check=False)
    serials = [c["serial"] for c in shared.daemon.json("cert", "list") if c["name"] == "unsaved"]
    assert late.returncode == 1 and len(serials) == 1 and f"certificate {serials[0]} is issued" in late.stderr


@pytest.mark.parametrize("args, word", [
    (("--csr", "request.pem", "--key", "rsa:2048"), "--csr"),
    (("--role", "proxy", "--san", "192.0.2.300"), "'192.0.2.300' is not an IP address"),
])
def test_contradictions_are_usage_errors(tmp_path, args, word):
    result = run_cli("cert", "issue", "contrary", "--out", tmp_path / "out", *args, check=False)
    assert result.returncode == 2 and word in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("role", ["proxy", "server"])
def test_a_listener_without_a_name_is_remarked_on(shared, tmp_path, role):
    words = ("--role", role, "--domain", "default", "--out", tmp_path)
    assert "--san" in shared.daemon.cli("cert", "issue", f"nameless-{role}", *words).stderr
    assert not shared.daemon.cli("cert", "issue", f"named-{role}", "--san", "a.example.com", *words).stderr


def test_a_proxys_certificate_carries_its_names(shared):
    proxy = shared.daemon.issue("edge-1", "--role", "proxy", "--san", "ingest.example.com", "--san", "192.0.2.7",
                                "--san", "2001:db8::7")
    names = openssl("x509", "-in", proxy.cert, "-noout", "-ext", "subjectAltName").stdout
    for name in ("DNS:ingest.example.com", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:7"):
        assert name in names
    with pytest.raises(CommandFailed, match="carries no DNS names"):
        shared.daemon.issue("no-listener", "--san", "192.0.2.7")


# --- list and show ---

def test_commands_without_a_daemon_wait_for_each_other(make_daemon):
    daemon = make_daemon()
    names = [f"together-{i}" for i in range(3)]

    def issue_in_turn(name):
        """A command may meet another one's short-lived server at its end: it is told to try again then."""
        try:
            daemon.issue(name)
        except CommandFailed as failure:
            assert "does not answer" in str(failure)
            issue_in_turn(name)

    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(issue_in_turn, names))
    assert set(names) <= {c["name"] for c in daemon.json("cert", "list")}


def test_list_by_status(make_daemon):
    daemon = make_daemon()
    for name in ("good", "out", "resting"):
        daemon.issue(name)
    daemon.cli("cert", "revoke", "out")
    daemon.cli("client", "suspend", "resting")
    def names(status):
        return {c["name"] for c in daemon.json("cert", "list", "--role", "client", "--status", status)}
    assert names("revoked") == {"out"} and names("suspended") == {"resting"} and names("expired") == set()
    assert "good" in names("valid") and not names("valid") & {"out", "resting"}
    assert daemon.cli("cert", "list", "--status", "good", check=False).returncode == 2
    assert "LAST SEEN" in daemon.cli("cert", "list").stdout


def test_show_has_the_lineage(make_daemon):
    daemon = make_daemon()
    daemon.issue("one")
    for _ in range(2):
        daemon.cli("cert", "renew", "one", "--out", daemon.certs)
    shown = daemon.json("cert", "show", "one")
    lineage = [c["serial"] for c in shown["lineage"]]
    assert len(set(lineage)) == 3 and lineage[-1] == shown["serial"] and shown["renews"] == lineage[1]
    middle = daemon.json("cert", "show", "--serial", lineage[1])
    assert [c["serial"] for c in middle["lineage"]] == lineage
    daemon.cli("cert", "revoke", "--serial", lineage[0], "--reason", "superseded")
    text = daemon.cli("cert", "show", "one").stdout
    assert f"lineage        {lineage[0]} revoked" in text and f"{lineage[2]} valid (this one)" in text
