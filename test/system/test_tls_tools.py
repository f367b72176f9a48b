"""`sealpost tls check` against every kind of server, `sealpost tls serve` against every kind of client."""
import contextlib
import datetime
import json
import socket
import ssl
import struct
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon import binary, craft_cert, environment, run_cli
from ports import own_port
from waiting import eventually

DAY = datetime.timedelta(days=1)


def check(url, *args, timeout=30):
    """(exit code, report)"""
    result = run_cli("tls", "check", url, "--json", "--timeout", timeout, *args, check=False)
    return result.returncode, json.loads(result.stdout) if result.stdout else None


def with_cert(identity):
    return ["--cert", identity.cert, "--key", identity.key, "--ca", identity.ca]


def step(report, name):
    return next(s for s in report["steps"] if s["name"] == name)


# --- our own listeners ---

def test_accepted_by_our_listener(shared):
    for listener in ("ingest", "server"):
        code, report = check(shared.daemon.ready[listener], *with_cert(shared.identity))
        assert code == 0 and report["outcome"] == "accepted" and report["alert"] is None
        assert {s["verdict"] for s in report["steps"]} == {"ok"}
        assert report["tls"]["version"] == "TLSv1.3"
        assert [c["subject"].split(" ")[0] for c in report["server_chain"]][1] == "CN=Sealpost"
        assert report["server_chain"][0]["days_left"] > 300 and "127.0.0.1" in report["server_chain"][0]["names"]
        assert len(report["asked"]["authorities"]) == 2
        assert "ecdsa_secp256r1_sha256" in report["asked"]["signature_algorithms"]
        assert report["sent"]["subject"] == f"CN={shared.identity.name}"
        assert report["http"] == {"status": 200, "says": "healthy"}


def test_the_report_is_for_people(shared):
    out = run_cli("tls", "check", shared.daemon.ready["ingest"], *with_cert(shared.identity)).stdout
    assert "days left" in out and f"CN={shared.identity.name}" in out and "\naccepted: https://" in out


def test_without_a_certificate(shared):
    code, report = check(shared.daemon.ready["ingest"], "--ca", shared.identity.ca)
    assert code == 0 and report["asked"] and report["sent"] is None
    assert step(report, "sent")["verdict"] == "warning"


def test_a_scheme_may_be_left_out(shared):
    code, report = check(shared.daemon.ready["ingest"].removeprefix("https://"), *with_cert(shared.identity))
    assert code == 0 and report["outcome"] == "accepted"


def test_server_of_an_authority_that_is_not_trusted(shared):
    code, report = check(shared.daemon.ready["ingest"])
    assert (code, report["outcome"]) == (4, "refused_by_us")
    assert "--ca" in step(report, "trust")["detail"]


def test_server_of_another_name(shared):
    code, report = check(shared.daemon.ready["ingest"], *with_cert(shared.identity), "--name", "broker.example.com")
    assert (code, report["outcome"]) == (4, "refused_by_us")
    assert "'broker.example.com'" in report["why"] and "127.0.0.1" in report["why"]


def test_revoked(shared):
    identity = shared.new_identity()
    assert check(shared.daemon.ready["ingest"], *with_cert(identity))[0] == 0
    shared.daemon.cli("cert", "revoke", identity.name)
    code, report = check(shared.daemon.ready["ingest"], *with_cert(identity))
    assert (code, report["outcome"]) == (4, "refused_by_server")
    assert report["alert"] == {"from": "server", "name": "certificate revoked"}
    assert "was revoked" in report["why"] and step(report, "sent")["verdict"] == "ok"
    # The server says so after the handshake, which as such went well.
    assert report["tls"]["version"] == "TLSv1.3"
    assert [s["name"] for s in report["steps"] if s["verdict"] == "failed"] == ["verdict"]


def test_client_certificate_of_another_ca(shared, tmp_path):
    subprocess.run([craft_cert(), "--out", tmp_path / "c.pem", "--key-out", tmp_path / "c.key"], check=True)
    code, report = check(shared.daemon.ready["ingest"], "--cert", tmp_path / "c.pem", "--key", tmp_path / "c.key",
                         "--ca", shared.identity.ca)
    assert (code, report["outcome"]) == (4, "refused_by_server")
    assert report["alert"]["name"] == "unknown CA" and "does not trust the CA" in report["why"]


# --- other people's servers ---

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """make(name, start, end): (certificate, key) files of a server, signed by an authority of its own; and its file."""
    directory = tmp_path_factory.mktemp("authority")
    now = datetime.datetime.utcnow()
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Their CA")])

    def build(name, issuer_name, key, start, end, ca):
        return (x509.CertificateBuilder().subject_name(name).issuer_name(issuer_name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now + start).not_valid_after(now + end)
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                               critical=False)
                .add_extension(x509.KeyUsage(True, *[False] * 4, ca, ca, False, False), critical=True))

    def make(name, start=-DAY, end=90 * DAY):
        key = ec.generate_private_key(ec.SECP256R1())
        cert = (build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), root_name, key, start, end, False)
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
                .sign(root_key, hashes.SHA256()))
        paths = directory / f"{name}{end.days}.pem", directory / f"{name}{end.days}.key"
        paths[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        paths[1].chmod(0o600)
        return paths

    make.ca = directory / "ca.pem"
    root = build(root_name, root_name, root_key, -DAY, 365 * DAY, True).sign(root_key, hashes.SHA256())
    make.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return make


@contextlib.contextmanager
def openssl_server(cert, key, *options):
    """`openssl s_server` that answers HTTP; its URL."""
    port = own_port()
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-www", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def answers():
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False
    try:
        eventually(answers, "openssl listens")
        yield f"https://localhost:{port}"
    finally:
        process.kill()
        process.communicate()


# name: (days until the end of its certificate, s_server's options, exit code, outcome, word in the reason)
SERVERS = {
    "good": (90, [], 0, "accepted", ""),
    "tls 1.2 only": (90, ["-tls1_2"], 4, "refused_by_us", "does not speak TLS 1.3"),
    "tls 1.1 only": (90, ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], 4, "refused_by_server", "TLS 1.2"),
    "ended": (-1, [], 4, "refused_by_us", "expired"),
    "wants a certificate": (90, ["-Verify", "1"], 4, "refused_by_server", "--cert"),
    "wants one, by tls 1.2": (90, ["-tls1_2", "-Verify", "1"], 4, "refused_by_server", "certificate"),
}


@pytest.mark.parametrize("case", SERVERS)
def test_other_servers(authority, case):
    days, options, expected_code, outcome, word = SERVERS[case]
    cert, key = authority("localhost", min(-DAY, (days - 1) * DAY), days * DAY)
    with openssl_server(cert, key, *options) as url:
        code, report = check(url, "--ca", authority.ca)
    assert (code, report["outcome"]) == (expected_code, outcome), report
    assert word in report["why"]
    if outcome == "refused_by_server":
        assert report["alert"]["from"] == "server"


def test_server_that_asks_for_no_certificate(shared, authority):
    cert, key = authority("localhost")
    with openssl_server(cert, key) as url:
        code, report = check(url, "--ca", authority.ca, "--cert", shared.identity.cert, "--key", shared.identity.key)
    assert code == 0 and report["asked"] is None and report["sent"] is None
    assert step(report, "asked")["verdict"] == "warning"


def test_server_that_insists_on_a_certificate(shared, authority):
    options = ["-Verify", "1", "-verify_return_error", "-CAfile", shared.identity.ca]
    with openssl_server(*authority("localhost"), *options) as url:
        code, report = check(url, "--ca", authority.ca)
    assert (code, report["alert"]) == (4, {"from": "server", "name": "certificate required"})
    assert "give --cert and --key" in report["why"]


def test_server_whose_certificate_ends_soon(authority):
    cert, key = authority("localhost", end=5 * DAY)
    with openssl_server(cert, key) as url:
        code, report = check(url, "--ca", authority.ca)
    assert code == 0
    assert step(report, "server")["verdict"] == "warning" and report["server_chain"][0]["days_left"] == 4


# --- what is no TLS server at all ---

@contextlib.contextmanager
def tcp_server(serve):
    """serve(connection) for the first connection; the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def run():
            connection, _ = listener.accept()
            with connection:
                serve(connection)
        thread = threading.Thread(target=run)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def hang_up(connection):
    connection.recv(10000)


def stay_silent(connection):
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(10000):
            pass


def cut_after_the_first_answer(files):
    """A server whose connection is reset once its part of the handshake is sent: the client writes to nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def serve(connection):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(connection.recv(10000))
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        connection.sendall(outgoing.read())
        connection.shutdown(socket.SHUT_WR)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return serve


def speak_otherwise(connection):
    connection.sendall(b"220 mail.example.com ESMTP ready, and what can we do for you today?\r\n")
    stay_silent(connection)


@pytest.mark.parametrize("serve, expected_code, outcome, word", [
    (hang_up, 5, "unreachable", "the handshake did not end"),
    (stay_silent, 5, "unreachable", "no answer within 1 s"),
    (speak_otherwise, 1, "failed", "does not speak TLS"),
])
def test_no_tls_server(serve, expected_code, outcome, word):
    with tcp_server(serve) as url:
        code, report = check(url, timeout=1 if serve is stay_silent else 30)
    assert (code, report["outcome"]) == (expected_code, outcome)
    assert word in report["why"]


def test_a_server_that_cuts_the_connection(authority):
    with tcp_server(cut_after_the_first_answer(authority("localhost"))) as url:
        code, report = check(url, "--ca", authority.ca, "--name", "localhost")
    # Whether the handshake or only the question got lost, is a race; that something is told, is not.
    assert (code, report["outcome"]) in ((5, "unreachable"), (4, "refused_by_server"))


def test_nobody_there():
    code, report = check(f"https://127.0.0.1:{own_port()}")
    assert (code, report["outcome"]) == (5, "unreachable") and "refused" in report["why"]
    code, report = check("https://nobody.invalid:8001")
    assert (code, report["steps"][0]["name"]) == (5, "resolve")


def test_wrong_usage(shared, tmp_path):
    assert check("http://127.0.0.1:80")[0] == 2
    assert check("https://127.0.0.1", "--cert", shared.identity.cert)[0] == 2
    result = run_cli("tls", "check", "https://127.0.0.1:1", "--ca", tmp_path / "none.pem", check=False)
    assert result.returncode == 1 and "none.pem" in result.stderr


# --- tls serve ---

@contextlib.contextmanager
def serving(site, *options):
    """`sealpost tls serve --once`: (address, wait), where wait() is (exit code, what it told)."""
    tls = site.daemon.data / "tls"
    process = subprocess.Popen(
        [binary(), "tls", "serve", "--listen", "127.0.0.1:0", "--cert", tls / "proxy.pem", "--key", tls / "proxy.key",
         "--ca", site.identity.ca, "--once", "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(None))
    where = process.stderr.readline().split()[2].rstrip(";")
    host, port = where.rsplit(":", 1)

    def wait():
        out, errors = process.communicate(timeout=60)
        assert "Sanitizer" not in errors
        return process.returncode, json.loads(out)
    try:
        yield (host, int(port)), wait
    finally:
        process.kill()
        process.wait()


def test_serve_accepts_a_client_of_ours(shared):
    with serving(shared) as (address, wait):
        code, report = check(f"https://{address[0]}:{address[1]}", *with_cert(shared.identity))
        assert code == 0 and report["http"]["status"] == 200
        code, told = wait()
    assert code == 0 and told["accepted"]
    assert "TLS 1.3" in told["offered"]["versions"] and told["offered"]["protocols"] == ["http/1.1"]
    assert told["sent"]["subject"] == f"CN={shared.identity.name}"
    assert "GET /api/v1/health HTTP/1.1" in step(told, "request")["detail"]
    assert {s["verdict"] for s in told["steps"]} <= {"ok", "note"}


def test_serve_tells_why_it_refuses(shared, tmp_path):
    subprocess.run([craft_cert(), "--ca-cert", next(shared.daemon.data.rglob("issuing.pem")), "--ca-key",
                    next(shared.daemon.data.rglob("issuing.key")), "--flaw", "cn_mismatch", "--out",
                    tmp_path / "c.pem", "--key-out", tmp_path / "c.key"], check=True)
    with serving(shared) as (address, wait):
        code, report = check(f"https://{address[0]}:{address[1]}", "--cert", tmp_path / "c.pem", "--key",
                             tmp_path / "c.key", "--ca", shared.identity.ca)
        assert code == 4 and report["alert"]["name"] == "bad certificate"
        code, told = wait()
    assert code == 4 and not told["accepted"] and told["why"] == "profile: san_cn_mismatch"
    assert step(told, "san_cn_mismatch")["verdict"] == "failed"


def test_serve_lets_in_only_a_role(shared):
    with serving(shared, "--role", "worker") as (address, wait):
        assert check(f"https://{address[0]}:{address[1]}", *with_cert(shared.identity))[0] == 4
        code, told = wait()
    assert code == 4 and told["why"].startswith("role")


def test_serve_to_a_client_without_a_certificate(shared):
    with serving(shared) as (address, wait):
        code, report = check(f"https://{address[0]}:{address[1]}", "--ca", shared.identity.ca)
        assert code == 4 and report["http"]["status"] == 401
        assert wait()[1]["sent"] is None


def test_serve_to_an_old_client(shared):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(shared.identity.ca)
    with serving(shared) as (address, wait):
        with pytest.raises(ssl.SSLError), socket.create_connection(address) as raw:
            context.wrap_socket(raw, server_hostname="127.0.0.1")
        code, told = wait()
    assert code == 4 and told["offered"]["versions"] == ["TLS 1.2"]


def test_serve_to_a_client_that_does_not_trust_us(shared, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca)
    with serving(shared) as (address, wait):
        with pytest.raises(ssl.SSLError), socket.create_connection(address) as raw:
            context.wrap_socket(raw, server_hostname="127.0.0.1")
        code, told = wait()
    assert code == 4 and "alert 'unknown CA'" in told["why"]
