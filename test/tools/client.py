"""Clients of a daemon under test: a quick keep-alive one, real curl, and a raw TLS socket for what no client sends."""
import http.client
import json
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field

NUMBER = "+4915112345678"


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes = field(repr=False, default=b"")

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        return self.headers.get(name.lower())


def tls_context(identity, ca=None):
    """TLS 1.3, trusting the daemon's CA only; identity None: without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca or identity.ca)
    if identity:
        context.load_cert_chain(identity.cert, identity.key)
    return context


class Client:
    """One keep-alive connection. source: the address to connect from."""

    def __init__(self, address, identity, ca=None, timeout=120, source=None):
        self.connection = http.client.HTTPSConnection(*address, context=tls_context(identity, ca), timeout=timeout,
                                                      source_address=source and (source, 0))

    def request(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        r = self.connection.getresponse()
        return Response(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, text="hello", number=NUMBER, headers=None, **members):
        body = json.dumps({"sender_number": number, "message_body": text, **members}, ensure_ascii=False)
        return self.post_raw(body.encode(), headers)

    def post_raw(self, body, headers=None):
        return self.request("POST", "/api/v1/messages", body, {"Content-Type": "application/json"} | (headers or {}))

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def curl(url, identity=None, *options, ca=None, input=None, timeout=120):
    """Real curl; the answer, or CalledProcessError with curl's exit code."""
    command = ["curl", "-sS", "--cacert", str(ca or identity.ca), "-D", "/dev/stderr"]
    if identity:
        command += ["--cert", str(identity.cert), "--key", str(identity.key)]
    result = subprocess.run([*command, *options, url], input=input, capture_output=True, timeout=timeout)
    result.check_returncode()
    lines = result.stderr.decode("latin-1").split("\r\n\r\n")[-2].split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return Response(int(lines[0].split()[1]), {k.lower(): v for k, v in headers.items()}, result.stdout)


class RawTLS:
    """Bytes over TLS, as they are. beat: how long to wait for bytes once the handshake is done, for a test that has to go
    on when none came."""

    def __init__(self, address, identity, timeout=120, beat=None):
        raw = socket.create_connection(address, timeout)
        self.socket = tls_context(identity).wrap_socket(raw, server_hostname=address[0])
        self.socket.settimeout(beat or timeout)

    def send(self, data):
        self.socket.sendall(data)

    def read_all(self):
        """Everything until the peer closes. A timeout is an error: the peer should have closed."""
        data = b""
        try:
            while chunk := self.socket.recv(65536):
                data += chunk
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            pass
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Load:
    """Posts from several connections at once until stopped, and keeps the ids that were acknowledged.

    A connection that breaks (the daemon was killed) ends its thread; nothing but a 202 counts.
    """

    def __init__(self, address, identity, connections=8, total=None):
        self.acknowledged = []
        self.refused = []
        self.sent = 0
        self.total = total
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(address, identity)) for _ in range(connections)]
        for t in self.threads:
            t.start()

    def _take_turn(self):
        with self.lock:
            if self.stopping.is_set() or (self.total is not None and self.sent >= self.total):
                return None
            self.sent += 1
            return self.sent

    def _run(self, address, identity):
        try:
            with Client(address, identity) as client:
                while (number := self._take_turn()) is not None:
                    answer = client.post(f"message number {number}")
                    if answer.status == 202:
                        self.acknowledged.append(answer.json["message_id"])
                    else:
                        self.refused.append(answer.status)
        except (OSError, http.client.HTTPException):
            pass

    def join(self):
        for t in self.threads:
            t.join()
        return self.acknowledged

    def stop(self):
        self.stopping.set()
        return self.join()
