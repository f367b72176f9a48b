"""What is measured: sealpost, the bare TLS responder, Redis; each in its own process, all on the same disk."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 60
LISTENERS = ("ingest", "server", "portal", "metrics")
QUEUE_STATES = ("queued", "retrying", "processing")


class EngineError(Exception):
    pass


def run(*args, timeout=120):
    """Standard output of a command that has to succeed."""
    words = [str(a) for a in args]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(words[:3])}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def wait_for(condition, process, what, seconds=START_SECONDS, interval=0.01):
    """Until condition() is true; the process must stay alive meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise EngineError(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() > end:
            raise EngineError(f"{what}: not within {seconds} s")
        time.sleep(interval)


def find_tool(name, top):
    """A program of the system, or one that scripts/deps has fetched."""
    found = shutil.which(name, path=f"{top}/.cache/tools/bin:{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise EngineError(f"{name} is not installed; scripts/deps bench installs it")
    return found


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise EngineError(f"process {pid} has no VmRSS")


class Engine:
    """A process with a directory of its own; what it says goes to DIR/log."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = None

    def spawn(self, *args):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in args], stdout=log, stderr=log)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def resident_bytes(self):
        return resident_bytes(self.process.pid)


class Certificates:
    """A CA, a server's certificate and a client's, of the same kind as sealpost's (P-256), made with openssl."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.cert, self.key, self.ca = (self.directory / n for n in ("client.pem", "client.key", "ca.pem"))
        self.server_cert, self.server_key = self.directory / "server.pem", self.directory / "server.key"
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        ca_key = self.directory / "ca.key"
        run("openssl", "req", "-x509", *new_key, "-keyout", ca_key, "-out", self.ca, "-days", 2, "-subj", "/CN=bench",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
            key, request, cert, extensions = (self.directory / f"{name}.{e}" for e in ("key", "csr", "pem", "ext"))
            extensions.write_text(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                                  f"extendedKeyUsage={usage}\nsubjectAltName=IP:127.0.0.1\n"
                                  f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
            run("openssl", "req", *new_key, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
            run("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-days", 2, "-out", cert,
                "-extfile", extensions)
            key.chmod(0o600)


class BareResponder(Engine):
    def __init__(self, directory, program, certificates):
        super().__init__(directory)
        self.cert, self.key, self.ca = certificates.cert, certificates.key, certificates.ca
        port_file = self.directory / "log"
        self.spawn(program, "--cert", certificates.server_cert, "--key", certificates.server_key, "--ca", self.ca)
        wait_for(lambda: port_file.read_text().strip(), self.process, "bare responder")
        self.url = f"https://127.0.0.1:{port_file.read_text().strip()}"


class Redis(Engine):
    """appendfsync always: what it acknowledges is on disk, as with sealpost. With certificates, over mutual TLS."""

    def __init__(self, directory, top, certificates=None):
        super().__init__(directory)
        self.benchmark = find_tool("redis-benchmark", top)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        listen, self.connect = ("--port", self.port), ("-p", self.port)
        if certificates:
            c = certificates
            listen = ("--port", 0, "--tls-port", self.port, "--tls-auth-clients", "yes", "--tls-ca-cert-file", c.ca,
                      "--tls-cert-file", c.server_cert, "--tls-key-file", c.server_key)
            self.connect += ("--tls", "--cert", c.cert, "--key", c.key, "--cacert", c.ca)
        self.spawn(find_tool("redis-server", top), *listen, "--bind", "127.0.0.1", "--dir", self.directory,
                   "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", 0, "--save", "")
        wait_for(self.answers, self.process, "redis-server")

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def xadd_per_second(self, connections, count, value_bytes=200):
        out = run(self.benchmark, *self.connect, "-c", connections, "-n", count, "--csv",
                  "XADD", "s", "*", "b", "x" * value_bytes)
        heading, values = (line.replace('"', "").split(",") for line in out.strip().splitlines()[-2:])
        # The command itself is a column and holds no comma.
        return float(dict(zip(heading, values))["rps"])


class Sealpost(Engine):
    """`sealpost up` on a data directory of its own, with one client's certificate."""

    def __init__(self, directory, program, settings=()):
        super().__init__(directory)
        self.program = program
        self.settings = [f"{name}_listen=127.0.0.1:0" for name in LISTENERS] + list(settings)
        self.data = self.directory / "data"
        self.cert, self.key, self.ca = (self.directory / n for n in ("bench.pem", "bench.key", "ca.pem"))
        self.start()
        self.command("cert", "issue", "bench", "--domain", "example.com", "--out", self.directory)

    def start(self):
        """Starts it; returns the seconds until it was ready."""
        ready_file = self.directory / "ready.json"
        ready_file.unlink(missing_ok=True)
        before = time.monotonic()
        self.spawn(self.program, "up", "--data", self.data, "--ready-file", ready_file,
                   *(word for s in self.settings for word in ("--set", s)))
        wait_for(ready_file.exists, self.process, "sealpost up")
        seconds = time.monotonic() - before
        ready = json.loads(ready_file.read_text())
        self.url = ready["ingest"]
        self.metrics, self.pids = {"up": ready["metrics"]}, {}
        return seconds

    def command(self, *args):
        return run(self.program, *args, "--data", self.data)

    def pause_delivery(self):
        self.command("queue", "pause", "delivery")

    def resume_delivery(self):
        self.command("queue", "resume", "delivery")

    def undelivered(self):
        stats = json.loads(self.command("queue", "stats", "--json"))
        return sum(stats[state] for state in QUEUE_STATES)

    def wait_until_delivered(self, seconds):
        # Each look is a process of its own: not so often that it would weigh on what is measured.
        wait_for(lambda: self.undelivered() == 0, self.process, "delivery", seconds, interval=0.2)

    def open_idle(self, count):
        """So many connections after their handshake; close them."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.cert, self.key)
        host, port = self.url.removeprefix("https://").rsplit(":", 1)
        return [context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
                for _ in range(count)]


class Role(Engine):
    """`sealpost server`, `proxy` or `worker` on a data directory of its own."""

    def __init__(self, directory, program, role, settings):
        super().__init__(directory)
        self.program, self.role = program, role
        self.data = self.directory / "data"
        self.settings = [f"{name}_listen=127.0.0.1:0" for name in LISTENERS] + list(settings)
        self.ready = {}

    def start(self):
        ready_file = self.directory / "ready.json"
        ready_file.unlink(missing_ok=True)
        self.spawn(self.program, self.role, "--data", self.data, "--ready-file", ready_file,
                   *(word for s in self.settings for word in ("--set", s)))
        wait_for(ready_file.exists, self.process, f"sealpost {self.role}")
        self.ready = json.loads(ready_file.read_text())


class RolesApart:
    """A main server, a proxy and a worker as processes of their own, with their queue on a Redis that syncs every
    write."""

    def __init__(self, directory, program, top):
        directory = Path(directory)
        self.redis = Redis(directory / "redis", top)
        queue = ["queue_driver=redis", f"redis_url=redis://127.0.0.1:{self.redis.port}/0"]
        self.server = Role(directory / "server", program, "server", queue)
        run(program, "init", "--data", self.server.data)
        certs = directory / "certs"
        self.issue(program, certs, "bench", "--domain", "example.com")
        self.cert, self.key, self.ca = (certs / n for n in ("bench.pem", "bench.key", "ca.pem"))
        self.roles = [self.server]
        try:
            self.server.start()
            for role, options in (("proxy", ("--san", "127.0.0.1")), ("worker", ())):
                self.issue(program, certs, role, "--role", role, *options)
                files = [f"{key}_file={certs / name}" for key, name in
                         (("cert", f"{role}.pem"), ("key", f"{role}.key"), ("ca", "ca.pem"))]
                self.roles.append(Role(directory / role, program, role,
                                       [*queue, *files, f"server_url={self.server.ready['server']}"]))
                self.roles[-1].start()
        except BaseException:
            self.stop()
            raise
        self.url = self.roles[1].ready["ingest"]
        self.metrics = {role.role: role.ready["metrics"] for role in self.roles}
        self.pids = {"redis": self.redis.process.pid}

    def issue(self, program, certs, *words):
        run(program, "cert", "issue", *words, "--out", certs, "--data", self.server.data)

    def stop(self):
        for engine in (*self.roles[1:], self.server, self.redis):
            engine.stop()


def bench(program, kind, server, words, options):
    """`sealpost bench KIND` on an engine; its JSON as a dict."""
    words = [*words, *(w for key, value in options.items() for w in (f"--{key.replace('_', '-')}", value))]
    return json.loads(run(program, "bench", kind, "--url", server.url, "--cert", server.cert, "--key", server.key,
                          "--ca", server.ca, "--json", *words))


def load(program, server, **options):
    return bench(program, "ingest", server, ["--server-pid", server.process.pid], options)


def end_to_end(program, server, **options):
    """Until all is stored; server.metrics says where its processes show theirs."""
    words = [w for name, url in server.metrics.items() for w in ("--metrics", f"{name}={url}")]
    words += [w for name, pid in server.pids.items() for w in ("--pid", f"{name}={pid}")]
    return bench(program, "e2e", server, words, options)
