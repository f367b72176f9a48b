"""The certificate authority from birth to rotation: keys of every type, requests of every kind, the root's key away and
back, another issuing CA while everything runs, lists for others, and how the signer is locked in."""
import base64
import concurrent.futures
import json
import os
import pty
import re
import signal
import ssl
import subprocess
import termios
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from client import Client
from daemon import CLIENT, Site, binary, environment
from test_certs import crl_of, openssl, serial_of
from waiting import eventually

KEY_TYPES = ("ec:P-256", "ec:P-384", "ed25519", "rsa:2048", "rsa:3072", "rsa:4096")
PASSPHRASE = "correct horse battery staple"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="looks into processes of root's")


def openssl_verdict(cert, ca, crl):
    """None, or why openssl refuses it."""
    result = openssl("verify", "-x509_strict", "-crl_check", "-CAfile", ca, "-CRLfile", crl, cert, check=False)
    return None if result.returncode == 0 else result.stderr


def secret_file(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.fixture
def passphrase(tmp_path):
    return secret_file(tmp_path / "root-passphrase", PASSPHRASE + "\n")


def issuers(daemon):
    return [issuer["key_id"] for issuer in daemon.json("ca", "show")["issuers"]]


def authority_key_id(cert):
    text = openssl("x509", "-in", cert, "-noout", "-ext", "authorityKeyIdentifier").stdout
    return re.search(r"((?:[0-9A-F]{2}:){19}[0-9A-F]{2})", text)[1].replace(":", "").lower()


# --- keys and requests ---

def test_every_key_type_is_issued_used_and_revoked(site, tmp_path):
    identities = [site.daemon.issue(f"key-{i}", "--domain", "example.com", "--key", key)
                  for i, key in enumerate(KEY_TYPES)]
    before = crl_of(site.daemon, tmp_path / "before.pem")
    for identity in identities:
        assert openssl_verdict(identity.cert, identity.ca, before) is None
        with site.client(identity) as client:
            assert client.post().status == 202
    for identity in identities:
        site.daemon.cli("cert", "revoke", identity.name)
    after = crl_of(site.daemon, tmp_path / "after.pem")
    for identity in identities:
        assert "certificate revoked" in openssl_verdict(identity.cert, identity.ca, after)


def make_request(path, *args):
    openssl("req", "-new", "-nodes", "-keyout", path.with_suffix(".key"), "-out", path, "-subj", "/CN=somebody-else",
            *args)
    return path


@pytest.mark.parametrize("args", [("-newkey", "rsa:3072"), ("-newkey", "ed25519"),
                                  ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384")], ids=lambda a: a[1])
def test_of_a_request_only_the_key_counts(shared, tmp_path, args):
    request = make_request(tmp_path / "request.pem", *args, "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
                           "subjectAltName=URI:spiffe://sealpost.local/admin/default/root,DNS:bank.example")
    name = f"by-request-{args[1].replace(':', '-')}"
    identity = shared.daemon.issue(name, "--domain", "example.com", "--csr", request)
    text = openssl("x509", "-in", identity.cert, "-noout", "-text").stdout
    assert f"CN = {name}" in text and f"/client/example.com/{name}" in text
    assert "CA:TRUE" not in text and "bank.example" not in text and "somebody-else" not in text
    assert not identity.key.exists()
    assert openssl("x509", "-in", identity.cert, "-noout", "-pubkey").stdout == \
        openssl("pkey", "-in", request.with_suffix(".key"), "-pubout").stdout


def damaged(path):
    """A request whose signature is another's."""
    der = path.with_suffix(".der")
    openssl("req", "-in", path, "-outform", "DER", "-out", der)
    content = bytearray(der.read_bytes())
    content[-1] ^= 1
    der.write_bytes(content)
    openssl("req", "-inform", "DER", "-in", der, "-out", path)
    return path


BAD_REQUESTS = {
    "RSA of 1024 bits": (lambda p: make_request(p, "-newkey", "rsa:1024"), "RSA"),
    "signed with SHA-1": (lambda p: make_request(p, "-newkey", "rsa:2048", "-sha1"), "SHA-2"),
    "signed with MD5": (lambda p: make_request(p, "-newkey", "rsa:2048", "-md5"), "SHA-2"),
    "curve P-521": (lambda p: make_request(p, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"), "P-256"),
    "curve secp256k1": (lambda p: make_request(p, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "P-256"),
    "Ed448": (lambda p: make_request(p, "-newkey", "ed448"), "Ed25519"),
    "explicit curve parameters": (lambda p: make_request(
        p, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"), "curve"),
    "somebody else's signature": (lambda p: damaged(make_request(p, "-newkey", "ed25519")), "signature"),
    "cut short": (lambda p: p.write_text(make_request(p, "-newkey", "ed25519").read_text()[:200]) and p, "PKCS #10"),
    "no request": (lambda p: p.write_text("hello\n") and p, "PKCS #10"),
    "empty": (lambda p: p.write_text("") or p, "PKCS #10"),
    "too large": (lambda p: p.write_text("x" * 200000) and p, "at most 65536 bytes"),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_bad_requests_are_refused_with_a_reason(shared, tmp_path, what):
    make, reason = BAD_REQUESTS[what]
    result = shared.daemon.cli("cert", "issue", "bad", "--csr", make(tmp_path / "bad.pem"), "--out", tmp_path / "out",
                               check=False)
    assert result.returncode in (1, 4), result.stderr
    assert reason.lower() in result.stderr.lower()
    assert not (tmp_path / "out").exists()


def test_lifetime_is_capped(make_daemon, tmp_path):
    daemon = make_daemon(settings={"cert_days_max": "30", "cert_days": "10"}).start()
    result = daemon.cli("cert", "issue", "long", "--days", "31", "--out", tmp_path, check=False)
    assert result.returncode != 0 and "1 to 30 days" in result.stderr
    identity = daemon.issue("short")
    assert openssl("x509", "-in", identity.cert, "-noout", "-checkend", 11 * 86400, check=False).returncode == 1
    assert openssl("x509", "-in", identity.cert, "-noout", "-checkend", 9 * 86400, check=False).returncode == 0


def test_one_file_with_everything(shared, tmp_path):
    password = secret_file(tmp_path / "password", "Grüße, p12\n")
    shared.daemon.cli("cert", "issue", "one-file", "--domain", "example.com", "--p12", "--password-file", password,
                      "--out", tmp_path)
    made = tmp_path / "one-file.p12"
    assert made.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "one-file.key").exists()
    assert openssl("pkcs12", "-in", made, "-passin", "pass:wrong", "-noout", check=False).returncode != 0
    pem = tmp_path / "all.pem"
    openssl("pkcs12", "-in", made, "-passin", f"file:{password}", "-nodes", "-out", pem)
    assert pem.read_text().count("BEGIN CERTIFICATE") == 3
    with Client(shared.daemon.address(), shared.identity.__class__("one-file", pem, pem, tmp_path / "ca.pem")) as client:
        assert client.post().status == 202
    info = openssl("pkcs12", "-in", made, "-passin", f"file:{password}", "-noout", "-info").stderr
    assert "AES-256-CBC" in info and "hmacWithSHA256" in info and "RC2" not in info


# --- the root's key ---

def test_root_key_leaves_encrypted_and_comes_back(site, tmp_path, passphrase):
    daemon, out, key = site.daemon, tmp_path / "root.key", site.daemon.data / "ca" / "root.key"
    wrong = secret_file(tmp_path / "wrong", "not the passphrase\n")
    short = secret_file(tmp_path / "short", "short\n")
    assert daemon.cli("ca", "export-root", "--remove", check=False).returncode == 2
    refused = daemon.cli("ca", "export-root", "--key", out, "--passphrase-file", short, check=False)
    assert refused.returncode == 1 and "8 to" in refused.stderr and not out.exists()

    daemon.cli("ca", "export-root", "--key", out, "--passphrase-file", passphrase)
    assert key.exists() and out.stat().st_mode & 0o777 == 0o600
    again = daemon.cli("ca", "export-root", "--key", out, "--passphrase-file", passphrase, check=False)
    assert again.returncode == 1 and "already" in again.stderr
    assert "scrypt" in openssl("asn1parse", "-in", out, "-inform", "PEM").stdout
    assert openssl("pkey", "-in", out, "-passin", f"file:{wrong}", "-noout", check=False).returncode != 0
    ours = openssl("pkey", "-in", out, "-passin", f"file:{passphrase}", "-pubout").stdout
    assert ours == openssl("x509", "-in", daemon.data / "ca" / "root.pem", "-noout", "-pubkey").stdout

    out.unlink()
    daemon.cli("ca", "export-root", "--key", out, "--passphrase-file", passphrase, "--remove")
    assert not key.exists()
    site.new_identity()
    missing = daemon.cli("ca", "rotate-issuing", check=False)
    assert missing.returncode == 3 and "import it" in missing.stderr
    daemon.restart()
    site.new_identity()

    assert daemon.cli("ca", "import-root", out, "--passphrase-file", wrong, check=False).returncode == 1
    foreign = make_request(tmp_path / "foreign.pem", "-newkey", "rsa:2048").with_suffix(".key")
    refused = daemon.cli("ca", "import-root", foreign, "--passphrase-file", passphrase, check=False)
    assert refused.returncode == 1 and "not the key of root.pem" in refused.stderr
    assert not key.exists()
    daemon.cli("ca", "import-root", out, "--passphrase-file", passphrase)
    assert key.exists()
    daemon.cli("ca", "rotate-issuing")
    log = [row["action"] for row in daemon.json("audit", "list")]
    assert {"ca.root.export", "ca.root.remove", "ca.root.import", "ca.rotate"} <= set(log)
    daemon.cli("audit", "verify")


def rest_of(terminal):
    """What is shown there until nobody has it open any more."""
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    return shown.decode()


def test_a_terminal_shows_again_after_a_passphrase_was_interrupted(site, tmp_path):
    ours, theirs = pty.openpty()
    script = 'trap : INT; "$@"; echo "code $?"; stty -a'
    command = [binary(), "ca", "export-root", "--key", tmp_path / "root.key", "--data", site.daemon.data]
    # Whoever runs the tests in the background may have SIGINT ignored, which is inherited.
    shell = subprocess.Popen(["env", "--default-signal=INT", "setsid", "--ctty", "sh", "-c", script, "sh", *command],
                             stdin=theirs, stdout=theirs, stderr=theirs, env=environment(None))
    os.close(theirs)
    eventually(lambda: not termios.tcgetattr(ours)[3] & termios.ECHO, "the passphrase is asked for")
    os.write(ours, b"\x03")
    shown = rest_of(ours)
    os.close(ours)
    assert shell.wait(30) == 0 and "code 130" in shown and "echo" in shown.split(), shown
    assert not (tmp_path / "root.key").exists()


def test_root_key_is_not_for_administrators_far_away(site):
    admin = site.daemon.issue("boss", "--role", "admin")
    host, port = site.daemon.address("server")
    with Client((host, port), admin) as client:
        assert client.get("/admin/ca").status == 200
        for path in ("rotate", "rekey", "root/export", "root/remove", "root/import"):
            answer = client.request("POST", f"/admin/ca/{path}", b'{"passphrase":"long enough"}',
                                    {"Content-Type": "application/json"})
            assert answer.status == 403, path


def test_another_passphrase_and_one_that_systemd_passes_on(make_daemon, tmp_path):
    secret = secret_file(tmp_path / "passphrase", "the first one\n")
    daemon = make_daemon(settings={"key_passphrase_file": str(secret)}).start()
    keys = [daemon.data / "ca" / name for name in ("root.key", "issuing.key")]
    assert not any("ENCRYPTED" in key.read_text() for key in keys), "made before there was a passphrase"
    for text in ("the first one\n", "the second one\nthe first one\n"):
        secret.write_text(text)
        daemon.cli("ca", "passphrase", "--config", config_with(daemon, secret))
        for key in keys:
            openssl("pkey", "-in", key, "-passin", f"pass:{text.splitlines()[0]}", "-noout")
        daemon.issue("during")
    daemon.stop()
    secret.write_text("the second one\n")
    daemon.server.settings["key_passphrase_file"] = "credential:ca"
    with pytest.raises(AssertionError, match="ended with"):
        daemon.start()
    assert "systemd passes no credentials" in daemon.log()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    secret_file(credentials / "ca", "the second one\n").chmod(0o400)
    daemon.server.env["CREDENTIALS_DIRECTORY"] = str(credentials)
    daemon.start()
    daemon.issue("after")


def config_with(daemon, secret):
    path = daemon.directory / "with-passphrase.yaml"
    path.write_text(f"key_passphrase_file: {secret}\n")
    return path


# --- another issuing CA ---

def server_issuer(daemon, listener):
    host, port = daemon.address(listener)
    pem = ssl.get_server_certificate((host, port))
    path = daemon.directory / f"{listener}.pem"
    path.write_text(pem)
    return authority_key_id(path)


def own_listeners(daemon):
    """Those whose certificates the main server makes by itself: a proxy elsewhere renews its own."""
    return ("ingest", "server") if daemon.proxy is daemon.server else ("server",)


def test_rotation_while_everything_runs(site, tmp_path):
    daemon = site.daemon
    with site.client() as old_client:
        assert old_client.post().status == 202
        daemon.cli("ca", "rotate-issuing")
        assert old_client.post().status == 202, "a connection that was open"
    new, old = issuers(daemon)
    later = daemon.issue("later", "--domain", "example.com")
    assert (authority_key_id(site.identity.cert), authority_key_id(later.cert)) == (old, new)
    eventually(lambda: all(server_issuer(daemon, name) == new for name in own_listeners(daemon)),
               "the listeners show certificates of the new issuing CA")
    # Who knows the old ca.pem and who knows the new one, with certificates of either.
    old_ca = tmp_path / "old-ca.pem"
    old_ca.write_bytes((daemon.data / "ca" / "root.pem").read_bytes())
    for identity in (site.identity, later):
        for ca in (old_ca, later.ca):
            with Client(daemon.address(), identity, ca=ca) as client:
                assert client.post().status == 202
    crl = crl_of(daemon, tmp_path / "crl.pem")
    assert crl.read_text().count("BEGIN X509 CRL") == 2
    assert openssl_verdict(site.identity.cert, later.ca, crl) is None
    assert openssl_verdict(later.cert, later.ca, crl) is None
    for identity in (site.identity, later):
        daemon.cli("cert", "revoke", identity.name)
        crl_of(daemon, crl)
        assert "certificate revoked" in openssl_verdict(identity.cert, later.ca, crl)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with Client(daemon.address(), identity) as client:
                client.post()
    daemon.restart()
    assert issuers(daemon) == [new, old]


def test_rotation_without_a_daemon_and_with_a_key_from_elsewhere(make_daemon, tmp_path, passphrase):
    daemon = make_daemon()
    root = tmp_path / "root.key"
    daemon.cli("ca", "export-root", "--key", root, "--passphrase-file", passphrase, "--remove")
    shown = daemon.cli("ca", "rotate-issuing", "--root-key", root, "--passphrase-file", passphrase).stdout
    assert "retiring" in shown and "kept elsewhere" in shown
    assert not (daemon.data / "ca" / "root.key").exists()
    site = Site(daemon.start())
    assert {server_issuer(daemon, name) for name in own_listeners(daemon)} == {issuers(daemon)[0]}
    with site.client() as client:
        assert client.post().status == 202


def crl_numbers(path):
    blocks = re.findall(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n", path.read_text(), re.S)
    return [int(subprocess.run(["openssl", "crl", "-noout", "-crlnumber"], input=block, capture_output=True, text=True,
                               check=True).stdout.split("=")[1], 16) for block in blocks]


def test_crl_numbers_grow_over_rotation_and_a_restored_backup(make_daemon, tmp_path):
    """They follow the clock, which no backup takes back."""
    daemon = make_daemon()
    backup = daemon.directory / "backup"
    subprocess.run(["cp", "-a", daemon.data, backup], check=True)
    highest = 0
    for step in range(4):
        daemon.issue(f"r{step}")
        daemon.cli("cert", "revoke", f"r{step}")
        if step == 1:
            daemon.cli("ca", "rotate-issuing")
        numbers = crl_numbers(crl_of(daemon, tmp_path / "crl.pem"))
        assert min(numbers) > highest
        highest = max(numbers)
        if step == 2:
            subprocess.run(["rm", "-rf", daemon.data], check=True)
            subprocess.run(["cp", "-a", backup, daemon.data], check=True)


# --- lists for others ---

def fetch(url):
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_plain_listener_and_where_leaves_point_to(make_daemon, tmp_path):
    daemon = make_daemon(settings={"crl_listen": "127.0.0.1:0", "ca_url": "http://ca.example.com"}).start()
    identity = daemon.issue("pointed", "--domain", "example.com")
    text = openssl("x509", "-in", identity.cert, "-noout", "-text").stdout
    urls = re.findall(r"URI:http://ca\.example\.com(\S+)", text)
    key_id = issuers(daemon)[0]
    assert urls == [f"/ca/issuers/{key_id}/crl.der", f"/ca/issuers/{key_id}/ca.der"]
    base = daemon.ready["crl"]
    assert base.startswith("http://127.0.0.1:")
    status, crl = fetch(base + urls[0])
    assert status == 200
    (tmp_path / "crl.der").write_bytes(crl)
    openssl("crl", "-inform", "DER", "-in", tmp_path / "crl.der", "-out", tmp_path / "crl.pem")
    status, issuer = fetch(base + urls[1])
    (tmp_path / "issuer.der").write_bytes(issuer)
    openssl("x509", "-inform", "DER", "-in", tmp_path / "issuer.der", "-noout")
    assert openssl_verdict(identity.cert, identity.ca, tmp_path / "crl.pem") is None
    for path in ("/ca/ca.pem", "/ca/crl.pem", "/ca/crl.der"):
        assert fetch(base + path)[0] == 200
    for path in ("/", "/metrics", "/livez", "/admin/ca", "/internal/sealing-keys", "/openapi.yaml",
                 f"/ca/issuers/{'0' * 40}/crl.der", "/ca/issuers/nonsense/ca.der"):
        assert fetch(base + path)[0] == 404, path
    # What a reload sets is in the next certificate.
    (daemon.data / "sealpost.yaml").write_text("public_url: https://main.example.com:8000\n")
    daemon.server.settings.pop("ca_url")
    daemon.restart()
    text = openssl("x509", "-in", daemon.issue("pointed-2").cert, "-noout", "-text").stdout
    assert "URI:https://main.example.com:8000/ca/issuers/" in text


def test_a_list_that_could_not_be_written_is_tried_again_soon(site, tmp_path):
    path = site.daemon.data / "ca" / "crl.der"
    identity = site.new_identity()
    path.unlink()
    path.mkdir()
    (path / "in-the-way").touch()
    site.daemon.cli("cert", "revoke", identity.name)
    (path / "in-the-way").unlink()
    path.rmdir()

    def published():
        text = openssl("crl", "-in", crl_of(site.daemon, tmp_path / "crl.pem"), "-noout", "-text").stdout
        return serial_of(identity).upper() in text
    eventually(published, "the list has what was revoked")
    with urllib.request.urlopen(site.daemon.server.ready["metrics"] + "/metrics") as answer:
        assert re.search(r"^sealpost_crl_failures_total [1-9]", answer.read().decode(), re.M)


# --- the signer ---

def read_or_gone(path):
    """What a file of /proc says; nothing of a thread or a process that has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid):
    """Of any of its threads."""
    return [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in read_or_gone(path).split()]


def signer_of(daemon):
    found = [pid for pid in children(daemon.server.pid)
             if read_or_gone(Path(f"/proc/{pid}/comm")).startswith("sealpost-sig")]
    return found[0] if found else None


def status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_signer_is_locked_in(site):
    pid = signer_of(site.daemon)
    shown = status(pid)
    assert shown["Seccomp"] == "2" and shown["NoNewPrivs"] == "1"
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0", limits)
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 5 if os.geteuid() == 0 else True


@root_only
def test_signer_of_root_is_nobody_without_network_or_dump(site):
    pid = signer_of(site.daemon)
    shown = status(pid)
    for field in ("Uid", "Gid"):
        ids = shown[field].split()
        assert len(set(ids)) == 1 and ids[0] != "0", shown[field]
    assert shown["Groups"].strip() == ""
    assert {shown[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    # A process that may be dumped owns its files in /proc; this one does not (prctl(2), PR_SET_DUMPABLE).
    assert Path(f"/proc/{pid}/maps").stat().st_uid == 0
    own, parent = (os.readlink(f"/proc/{p}/ns/net") for p in (pid, site.daemon.server.pid))
    assert own != parent
    assert Path(f"/proc/{pid}/net/tcp").read_text().count("\n") == 1, "no sockets, no interfaces but an idle loopback"


@root_only
def test_signer_user_is_checked(make_daemon):
    for user, said in (("no-such-user", "there is no user"), ("root", "is root")):
        daemon = make_daemon(settings={"signer_user": user})
        with pytest.raises(AssertionError, match="ended with"):
            daemon.start()
        assert said in daemon.log()


def test_signer_that_is_killed_is_replaced_and_nobody_notices(site):
    daemon = site.daemon
    seen = set()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        issued = [pool.submit(daemon.cli, "cert", "issue", f"k{i}", "--out", daemon.certs, check=False) for i in range(16)]
        while not all(f.done() for f in issued):
            pid = signer_of(daemon)
            if pid and pid not in seen and len(seen) < 4:
                seen.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
    # A request that the signer died over may be answered with "try again"; nothing else.
    assert {f.result().returncode for f in issued} <= {0, 5}
    done = [f"k{i}" for i, f in enumerate(issued) if f.result().returncode == 0]
    assert len(done) >= 16 - len(seen) and seen
    known = {c["serial"] for c in daemon.json("cert", "list")}
    assert {serial_of(daemon.issued(name)) for name in done} <= known
    daemon.cli("cert", "revoke", done[0])
    daemon.cli("audit", "verify")


# --- the CA's keys are nowhere else ---

def key_needles(path, passphrase):
    """The key's secret numbers as they would lie in memory or in a file: big-endian, as OpenSSL's little-endian words, in
    hexadecimal, in base64."""
    key = serialization.load_pem_private_key(path.read_bytes(), passphrase and passphrase.encode())
    numbers = key.private_numbers()
    secrets = [numbers.private_value] if hasattr(numbers, "private_value") else [numbers.p, numbers.q, numbers.d]
    for secret in secrets:
        raw = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
        middle = raw[4:-4]  # alignment and leading zeros do not matter
        yield from (middle, middle[::-1], middle.hex().encode(), middle.hex().upper().encode())
        yield from (base64.b64encode(raw[shift:])[8:-8] for shift in range(3))


def memory_of(pid):
    """Every page that can be read."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if mode[0] != "r" or "[v" in line:
                continue
            try:
                memory.seek(begin)
                yield memory.read(end - begin)
            except (OSError, ValueError):
                continue


def holds(blocks, needles):
    return any(needle in block for block in blocks for needle in needles)


@root_only
@pytest.mark.plain
def test_ca_keys_are_nowhere_but_in_the_signer(make_daemon, tmp_path, passphrase):
    daemon = make_daemon(fresh=True, settings={"key_passphrase_file": str(passphrase), "log_level": "debug",
                                               "log_file": str(tmp_path / "sealpost.log")})
    site = Site(daemon.start())
    daemon.issue(CLIENT, "--domain", "example.com")
    with site.client() as client:
        assert client.post().status == 202
    daemon.cli("ca", "rotate-issuing")
    daemon.cli("ca", "export-root", "--key", tmp_path / "root.key", "--passphrase-file", passphrase)
    daemon.cli("cert", "revoke", CLIENT)
    keys = {path.name: list(key_needles(path, PASSPHRASE)) for path in (daemon.data / "ca").glob("*.key")}
    assert len(keys) == 3, "root, current and retiring issuing CA"
    needles = [needle for found in keys.values() for needle in found]

    signer = signer_of(daemon)
    assert holds(memory_of(signer), keys["issuing.key"]), "the search itself finds what is there"
    assert not holds(memory_of(signer), keys["root.key"]), "a key that it does not need"
    assert not holds(memory_of(daemon.pid), needles)
    for pid in (daemon.pid, signer):
        assert not holds([Path(f"/proc/{pid}/environ").read_bytes(), Path(f"/proc/{pid}/cmdline").read_bytes()],
                         [*needles, PASSPHRASE.encode()])
    files = [p for top in (daemon.directory, tmp_path) for p in top.rglob("*") if p.is_file() and p != passphrase]
    assert len(files) > 10
    assert [p.name for p in files if holds([p.read_bytes()], [*needles, PASSPHRASE.encode()])] == []


# --- many ---

def test_many_certificates_half_of_them_at_once(make_daemon):
    """$SEALPOST_TEST_CERTIFICATES: how many; 10000 by hand."""
    count = int(os.environ.get("SEALPOST_TEST_CERTIFICATES", "200"))
    daemon = make_daemon().start()
    admin = daemon.issue("many-admin", "--role", "admin")
    known = len(daemon.json("cert", "list"))
    key = openssl("genpkey", "-algorithm", "ED25519").stdout
    request = subprocess.run(["openssl", "req", "-new", "-key", "/dev/stdin", "-subj", "/CN=x"], input=key,
                             capture_output=True, text=True, check=True).stdout

    def issue(numbers):
        serials = []
        with Client(daemon.address("server"), admin) as client:
            for i in numbers:
                answer = client.request("POST", "/admin/certificates/generate", json.dumps(
                    {"name": f"m{i}", "domain": "example.com", "csr": request}), {"Content-Type": "application/json"})
                assert answer.status == 201, answer.body
                issued = answer.json
                assert issued["certificate_pem"].startswith("-----BEGIN CERTIFICATE-----")
                ssl.PEM_cert_to_DER_cert(issued["certificate_pem"])
                serials.append(issued["serial"])
        return serials

    begin = time.monotonic()
    serials = issue(range(count // 2))
    middle = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = [range(count // 2 + n, count, 8) for n in range(8)]
        serials += [serial for part in pool.map(issue, parts) for serial in part]
    end = time.monotonic()
    print(f"{count} certificates: {count / 2 / (middle - begin):.0f}/s one by one, "
          f"{count / 2 / (end - middle):.0f}/s eight at a time")
    assert len(serials) == len(set(serials)) == count

    registered, cursor = set(), ""
    with Client(daemon.address("server"), admin) as client:
        while cursor is not None:
            page = client.get(f"/admin/certificates?limit=500&cursor={cursor}" if cursor else
                              "/admin/certificates?limit=500").json
            registered |= {c["serial"] for c in page["certificates"]}
            cursor = page["next_cursor"]
    assert set(serials) <= registered and len(registered) == count + known
    daemon.cli("audit", "verify")
