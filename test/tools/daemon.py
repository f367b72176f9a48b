"""A sealpost daemon under test: its data directory, its process, its command line.

The program is $SEALPOST_BIN. Every listener gets a free port; readiness comes from --ready-file. When a daemon is
stopped, what it wrote to stderr is searched for sanitizer reports, so that a test cannot pass over one.
"""
import itertools
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from client import Client
from waiting import eventually

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Memory)Sanitizer|WARNING: ThreadSanitizer|runtime error:|SUMMARY: \w+Sanitizer")
LISTENERS = ("ingest", "server", "portal", "metrics")
serial = itertools.count(1)
START_TIMEOUT = 120  # seconds; a sanitizer build on a loaded machine with a long queue to read
COMMAND_TIMEOUT = 240  # seconds; a command that never ends fails before pytest gives up on its test
# Clients of tests are slow when the machine is busy, not on purpose; tests of the deadlines have their own.
PATIENT = {f"{what}_timeout": "2m" for what in ("handshake", "head", "body", "write")}


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, and what its bearer trusts."""
    name: str
    cert: Path
    key: Path
    ca: Path


class CommandFailed(AssertionError):
    def __init__(self, args, result):
        super().__init__(f"sealpost {' '.join(map(str, args))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        self.returncode = result.returncode


def binary():
    path = os.environ.get("SEALPOST_BIN")
    assert path and Path(path).is_file(), "SEALPOST_BIN names the program under test"
    return path


def craft_cert():
    """The tool beside the program that makes certificates with one thing wrong."""
    return str(Path(binary()).parent / "test/tools/craft-cert")


def environment(extra):
    """This process's, without what would configure the program, and with that of the test."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SEALPOST_")} | (extra or {})


def run_cli(*args, check=True, input=None, env=None, timeout=COMMAND_TIMEOUT):
    """One command, without a data directory of its own."""
    result = subprocess.run([binary(), *map(str, args)], input=input, capture_output=True, text=True,
                            timeout=timeout, env=environment(env))
    report = SANITIZER_REPORT.search(result.stderr)
    assert not report, f"sealpost {' '.join(map(str, args))}:\n{result.stderr}"
    if check and result.returncode != 0:
        raise CommandFailed(args, result)
    return result


class Sealpost:
    """`sealpost up`, or one role, on a data directory. start, stop, kill and start again as often as needed."""

    def __init__(self, directory, settings=None, env=None, wrapper=(), command="up"):
        self.command = command
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.certs = self.directory / "certs"
        self.ready_file = self.directory / "ready.json"
        self.stderr_file = self.directory / "stderr.log"
        self.settings = {f"{name}_listen": "127.0.0.1:0" for name in LISTENERS} | PATIENT | (settings or {})
        self.env = env or {}
        self.wrapper = list(wrapper)
        self.process = None
        self.ready = {}

    # --- who does what: one process here, several in RolesApart ---

    @property
    def roles(self):
        return [self]

    @property
    def server(self):
        """The process with store and CA."""
        return self

    @property
    def proxy(self):
        """The process that clients talk to."""
        return self

    @property
    def worker(self):
        """The process that delivers."""
        return self

    @property
    def certificate_files(self):
        """Certificate and key that the proxy shows to clients."""
        own = self.data / "tls"
        return [Path(self.settings.get(f"{what}_file", own / file))
                for what, file in (("cert", "proxy.pem"), ("key", "proxy.key"))]

    # --- life and death ---

    def spawn(self):
        """Starts the process and returns at once."""
        assert self.process is None, "already running"
        self.ready_file.unlink(missing_ok=True)
        settings = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        with self.stderr_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, binary(), self.command, "--data", str(self.data), "--ready-file", str(self.ready_file),
                 *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self.env),
                start_new_session=True)

    def start(self, timeout=START_TIMEOUT):
        self.spawn()
        self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=START_TIMEOUT):
        def ready_or_dead():
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.log_tail()}"
            return self.ready_file.exists()
        try:
            eventually(ready_or_dead, f"{self.ready_file} written", timeout)
        except AssertionError:
            self.kill()
            raise
        self.ready = json.loads(self.ready_file.read_text())

    @property
    def pid(self):
        """Of the daemon itself, below any wrapper."""
        return self.ready["pid"]

    def signal(self, number):
        os.kill(self.pid if self.ready else self.process.pid, number)

    def configure(self, settings):
        """Other options, taken while it runs."""
        with (self.data / "sealpost.yaml").open("a") as file:
            file.writelines(f"{name}: {value}\n" for name, value in settings.items())
        self.signal(signal.SIGHUP)

    def wait(self, timeout=120):
        """The exit code, once the process has ended by itself."""
        code = self.process.wait(timeout)
        self.process, self.ready = None, {}
        return code

    def stop(self, expect=0):
        """SIGTERM, and the drain that follows."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        self.check_log()
        assert code == expect, f"exit {code} after SIGTERM\n{self.log_tail()}"

    def kill(self):
        """SIGKILL to the daemon and all its children."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process, self.ready = None, {}

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        """End of a test: whatever state it left the daemon in."""
        try:
            if self.process is not None and self.process.poll() is None and self.ready:
                self.stop()
        finally:
            self.kill()
        self.check_log()

    # --- what it said ---

    def log(self):
        return self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""

    def log_tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    def check_log(self):
        report = SANITIZER_REPORT.search(self.log())
        assert not report, self.log()[max(0, report.start() - 200):report.start() + 6000]

    # --- its command line ---

    def cli(self, *args, **kw):
        """`sealpost ARGS` against this data directory."""
        return run_cli(*args, "--data", self.data, **kw)

    def json(self, *args, **kw):
        return json.loads(self.cli(*args, "--json", **kw).stdout)

    def issue(self, name, *options):
        """A registered certificate for NAME, with its key."""
        self.cli("cert", "issue", name, "--out", self.certs, *options)
        return self.issued(name)

    def issued(self, name):
        return Identity(name, self.certs / f"{name}.pem", self.certs / f"{name}.key", self.certs / "ca.pem")

    def messages(self, limit=100000):
        return self.json("messages", "list", "--limit", limit)

    def delivered(self):
        """Ids of all messages that are delivered; a repeated one would be a message stored twice."""
        ids = [m["message_id"] for m in self.messages() if m["status"] == "delivered"]
        assert len(ids) == len(set(ids)), "a message is stored twice"
        return set(ids)

    # --- where it listens ---

    def health(self):
        """The whole health answer, healthy or not, from the metrics listener."""
        try:
            with urllib.request.urlopen(self.ready["metrics"] + "/api/v1/health") as answer:
                return json.load(answer)
        except urllib.error.HTTPError as e:
            return json.load(e)

    def metrics(self):
        """The metrics page: {"name{label=\"value\"}": value}."""
        with urllib.request.urlopen(self.ready["metrics"] + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def address(self, listener="ingest"):
        host, port = self.ready[listener].split("://")[1].rsplit(":", 1)
        return host.strip("[]"), int(port)


CLIENT = "client_001"


def make_template(directory):
    """A data directory with keys, CA and one client's certificate; making those takes seconds, copying them none."""
    daemon = Sealpost(directory)
    daemon.cli("init")
    daemon.issue(CLIENT, "--domain", "example.com")
    return daemon


class Site:
    """A running daemon, started from the template, with the client that holds a certificate."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.identity = daemon.issued(CLIENT)

    def client(self, identity=None):
        return Client(self.daemon.address(), identity or self.identity)

    def anonymous(self):
        return Client(self.daemon.address(), None, ca=self.identity.ca)

    def new_identity(self, *options):
        return self.daemon.issue(f"client-{next(serial)}", "--domain", "example.com", *options)
