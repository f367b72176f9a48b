"""Devices that enrol: with our own program, and as any EST client does, by openssl and curl."""
import json
import subprocess
from pathlib import Path

from daemon import Identity, run_cli

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
