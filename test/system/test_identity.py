"""Which certificates are let in, and which alert the others get."""
import datetime
import re
import socket
import ssl
import subprocess
import time
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client import curl, tls_context
from daemon import Identity, craft_cert
from waiting import eventually

DAY = datetime.timedelta(days=1)


def write_leaf(directory, name, issuer_cert, issuer_key, ca, start=-DAY, end=DAY, domain="example.com"):
    """A client certificate with our profile, signed by whoever; never registered."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    uri = f"spiffe://sealpost.local/client/{domain}/{name}"
    cert = (x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer_cert.subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start).not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                           critical=False)
            .sign(issuer_key, hashes.SHA256()))
    directory.mkdir(exist_ok=True)
    identity = Identity(name, directory / f"{name}.pem", directory / f"{name}.key", ca)
    identity.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM)
                              + issuer_cert.public_bytes(serialization.Encoding.PEM))
    identity.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
    return identity


def our_issuer(daemon):
    """The issuing CA of the daemon, taken from its data directory as a thief would."""
    cert = next(daemon.data.rglob("issuing.pem"))
    key = next(daemon.data.rglob("issuing.key"))
    return (x509.load_pem_x509_certificate(cert.read_bytes()),
            serialization.load_pem_private_key(key.read_bytes(), None))


def foreign_issuer():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Somebody else's CA")])
    now = datetime.datetime.utcnow()
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256()))
    return cert, key


def alert_of(site, identity):
    """The TLS alert that ends a handshake with this certificate. Nothing is sent meanwhile: what comes after the server
    has closed is answered with a reset, and that is all that a slow client would be told."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as refused:
        with socket.create_connection(site.daemon.address(), 60) as raw, \
                tls_context(identity).wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            tls.recv(1)
    return re.sub(r"[^a-z]+", " ", str(refused.value).lower())


def test_certificate_of_another_ca(shared, tmp_path):
    identity = write_leaf(tmp_path, "stranger", *foreign_issuer(), shared.identity.ca)
    assert "unknown ca" in alert_of(shared, identity)


def test_expired_certificate(shared, tmp_path):
    identity = write_leaf(tmp_path, "old", *our_issuer(shared.daemon), shared.identity.ca, -2 * DAY, -DAY)
    assert "certificate expired" in alert_of(shared, identity)


def test_certificate_from_the_future(shared, tmp_path):
    identity = write_leaf(tmp_path, "early", *our_issuer(shared.daemon), shared.identity.ca, DAY, 2 * DAY)
    assert "alert" in alert_of(shared, identity)


def test_certificate_that_was_never_registered(shared, tmp_path):
    identity = write_leaf(tmp_path, "client_001", *our_issuer(shared.daemon), shared.identity.ca)
    assert "alert" in alert_of(shared, identity)


def test_curl_refuses_a_server_of_another_ca(shared, tmp_path):
    cert, _ = foreign_issuer()
    other = tmp_path / "other.pem"
    other.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        curl(shared.daemon.ready["ingest"] + "/livez", shared.identity, ca=other)
    assert refused.value.returncode == 60


def test_older_tls_is_refused(shared):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(shared.identity.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(shared.daemon.address()) as raw:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_roles_that_are_no_clients_may_not_post(shared):
    for role in ("monitor", "worker"):
        identity = shared.daemon.issue(f"a-{role}", "--role", role)
        try:
            with shared.client(identity) as client:
                assert client.post().status == 403
        except (ssl.SSLError, ConnectionResetError):
            pass  # let in nowhere is as good
    with shared.client() as client:
        assert client.post().status == 202


def test_revoked_is_cut_off_within_a_second(site):
    """The bar is one second after `cert revoke` returns; the connection was open before."""
    identity = site.new_identity()
    with site.client(identity) as client:
        assert client.post().status == 202
        site.daemon.cli("cert", "revoke", identity.name)
        answer = client.post()
    assert answer.status == 403
    assert answer.json["code"] == "certificate_revoked"
    assert answer.header("connection") == "close"
    assert "revoked" in alert_of(site, identity)
    with site.client() as other:
        assert other.post().status == 202


# --- certificates with one thing wrong ---

def crafted(daemon, directory, flaw):
    """A client's certificate from our own issuing CA with that flaw."""
    out, key = directory / f"{flaw}.pem", directory / f"{flaw}.key"
    subprocess.run([craft_cert(), "--ca-cert", next(daemon.data.rglob("issuing.pem")),
                    "--ca-key", next(daemon.data.rglob("issuing.key")), "--flaw", flaw, "--out", out, "--key-out", key],
                   check=True)
    return out, key


def counters(daemon, name, label):
    """{label: count} of the ingest listener."""
    with urllib.request.urlopen(daemon.ready["metrics"] + "/metrics") as answer:
        text = answer.read().decode()
    return {m[1]: int(m[2]) for m in re.finditer(
        rf'^{name}\{{listener="ingest",{label}="(\w+)"\}} (\d+)', text, re.M)}


def handshakes(daemon):
    """{outcome: handshakes that ended with it}"""
    return counters(daemon, "sealpost_tls_handshakes_total", "outcome")


def refusals(daemon):
    """{reason: certificates refused for it}"""
    return counters(daemon, "sealpost_tls_certificates_refused_total", "reason")


def grown(after, before):
    return {k for k, v in after.items() if v > before.get(k, 0)}


def try_to_post(site, cert, key):
    """Whether the listener took the certificate; None where our own TLS library will not load it or not send it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_verify_locations(site.identity.ca)
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError:
        return None
    try:
        with socket.create_connection(site.daemon.address(), 60) as raw, \
                context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            tls.sendall(b"POST /api/v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            return None if tls.recv(1000).startswith(b"HTTP/1.1 401 ") else True
    except (ssl.SSLError, ConnectionError):
        return False


def test_each_flaw_is_refused_for_what_it_is(shared, tmp_path):
    """`craft-cert --list` names every flaw, the rule that it breaks, and what a listener makes of it; metrics and log say
    what it did."""
    rows = [line.split("\t") for line in subprocess.run([craft_cert(), "--list"], check=True, capture_output=True,
                                                        text=True).stdout.splitlines()]
    tried, wrong = 0, []
    for flaw, _, rule, expected in (row for row in rows if row[1] == "leaf"):
        before, refused_before = handshakes(shared.daemon), refusals(shared.daemon)
        taken = try_to_post(shared, *crafted(shared.daemon, tmp_path, flaw))
        if taken is None:
            continue
        tried += 1
        outcomes = eventually(lambda: grown(handshakes(shared.daemon), before), f"the handshake with {flaw} is counted")
        reasons = eventually(lambda: grown(refusals(shared.daemon), refused_before), f"the reason for {flaw} is counted")
        # What OpenSSL stops before our profile looks has no rule of ours.
        allowed = {rule} if expected == "profile" else {rule, expected}
        if taken or outcomes != {expected} or len(reasons) != 1 or not reasons <= allowed:
            wrong.append(f"{flaw}: expected {expected} for {rule}, got {outcomes} for {reasons}")
    assert not wrong
    assert tried > 50, "most of them have to reach the listener"
    with shared.client() as client:
        assert client.post().status == 202


def test_each_other_refusal_has_its_reason_in_log_and_metric(site, tmp_path):
    """With the name where it is known, and no more lines a second than the log should take."""
    daemon = site.daemon
    revoked, suspended = site.new_identity(), site.new_identity()
    daemon.cli("cert", "revoke", revoked.name)
    daemon.cli("client", "suspend", suspended.name)
    cases = {
        "revoked": revoked,
        "suspended": suspended,
        "unregistered": write_leaf(tmp_path, "client_001", *our_issuer(daemon), site.identity.ca),
        "expired": write_leaf(tmp_path, "old", *our_issuer(daemon), site.identity.ca, -2 * DAY, -DAY),
        "not_yet_valid": write_leaf(tmp_path, "early", *our_issuer(daemon), site.identity.ca, DAY, 2 * DAY),
        "unknown_ca": write_leaf(tmp_path, "stranger", *foreign_issuer(), site.identity.ca),
        "role": daemon.issue("a-worker", "--role", "worker"),
    }
    for reason, identity in cases.items():
        before = refusals(daemon)
        alert_of(site, identity)
        assert eventually(lambda: grown(refusals(daemon), before), f"{reason} is counted") == {reason}
        line = eventually(lambda: next((s for s in reversed(daemon.log().splitlines()) if "tls.certificate_refused" in s
                                        and f"reason={reason}" in s), None), f"{reason} is in the log")
        assert "listener=ingest" in line and "address=127.0.0.1" in line
        assert (identity.name in line) == (reason in ("revoked", "suspended", "unregistered", "role"))
    before, start = (refusals(daemon)["revoked"], daemon.log().count("tls.certificate_refused")), time.monotonic()
    for _ in range(60):
        alert_of(site, revoked)
    eventually(lambda: refusals(daemon)["revoked"] == before[0] + 60, "every one is counted")
    seconds = time.monotonic() - start + 2  # begun ones count in full
    assert daemon.log().count("tls.certificate_refused") - before[1] <= 10 * seconds
