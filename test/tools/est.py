"""Devices that enrol: with our own program, and as any EST client does, by openssl and curl."""
import datetime
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from daemon import Identity, craft_cert, run_cli

EST = "/.well-known/est"


def token(daemon, name, *options, fresh=True):
    """A token as JSON; fresh: of a client that is added with it."""
    command = ("add", name, "--domain", "example.com") if fresh else ("token", name)
    return daemon.json("client", *command, *options)


def enroll(made, out, *options, check=True):
    """`sealpost enroll` on the device; the identity, or the failed command's result."""
    result = run_cli("enroll", made["token"], "--out", out, *options, check=check)
    return identity(made["name"], out) if result.returncode == 0 else result


def identity(name, out):
    return Identity(name, Path(out) / f"{name}.pem", Path(out) / f"{name}.key", Path(out) / "ca.pem")


def openssl(*args, input=None):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, input=input).stdout


def csr(directory, subject="/CN=whoever", key=None, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
    """A PKCS #10 request in base64, and the file of its key."""
    key = key or ["-newkey", *kind, "-nodes", "-keyout", directory / "est.key"]
    der = openssl("req", "-new", "-subj", subject, "-outform", "DER", *key)
    return openssl("base64", input=der)


def post(url, operation, request, ca, *options, media="application/pkcs10"):
    """Plain curl; status, headers and body."""
    command = ["curl", "-sS", "-i", "--http1.1", "--cacert", str(ca), "-H", f"Content-Type: {media}",
               "--data-binary", "@-", *map(str, options), f"{url}{EST}/{operation}"]
    raw = subprocess.run(command, input=request, check=True, capture_output=True).stdout
    head, body = raw.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


def certificates(body):
    """PEM of the certificates in an answer."""
    der = openssl("base64", "-d", input=body)
    return openssl("pkcs7", "-inform", "DER", "-print_certs", input=der).decode()


def problem(body):
    return json.loads(body)


def register_crafted(daemon, name, directory, first_day, last_day):
    """A client's certificate from our own CA that runs from one day to another, past ones too, in the registry.

    The daemon must not be running.
    """
    directory.mkdir(parents=True, exist_ok=True)
    device = identity(name, directory)
    subprocess.run([craft_cert(), "--ca-cert", next(daemon.data.rglob("issuing.pem")), "--ca-key",
                    next(daemon.data.rglob("issuing.key")), "--name", name, "--uri",
                    f"spiffe://sealpost.local/client/example.com/{name}", "--from", str(first_day), "--to",
                    str(last_day), "--out", device.cert, "--key-out", device.key], check=True)
    with device.cert.open("ab") as file:
        file.write(next(daemon.data.rglob("issuing.pem")).read_bytes())
    shutil.copy(daemon.data / "ca" / "ca.pem", device.ca)
    cert = x509.load_pem_x509_certificate(device.cert.read_bytes())
    issuer = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = cert.serial_number.to_bytes((cert.serial_number.bit_length() + 7) // 8, "big")
    start, end = (int(t.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
                  for t in (cert.not_valid_before, cert.not_valid_after))
    with sqlite3.connect(next(daemon.data.rglob("store.db"))) as db:
        for counter in ("certs", "change"):
            db.execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (counter,))
        change, = db.execute("SELECT value FROM counters WHERE name = 'change'").fetchone()
        db.execute("INSERT INTO certs (serial, issuer, role, name, domain, not_before_ms, not_after_ms, issued_ms, change,"
                   " der) VALUES (?, ?, 'client', ?, 'example.com', ?, ?, ?, ?, ?)",
                   (serial, issuer, name, start, end, start, change, cert.public_bytes(Encoding.DER)))
    return device
