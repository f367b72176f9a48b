"""Real Redis servers and Sentinels under test: each on a port, a socket and in a directory of its own.

The programs are those in PATH: scripts/deps lays redis-server there without its package's service, and a Sentinel is
the same program started with --sentinel. A server promises what sealpost asks for (every write synced, nothing
evicted) until the test says otherwise with `settings` or config().
"""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from ports import own_port
from waiting import eventually

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
START_TIMEOUT = 60  # seconds


class RedisError(Exception):
    """What the server answered with a minus sign."""


class Connection:
    """One connection for the test's own commands (RESP2); bytes come back as str where they are UTF-8."""

    def __init__(self, path, password=None, user="default", timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        if password:
            self.command("AUTH", user, password)

    def command(self, *words):
        parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        return self._reply()

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise RedisError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return None if rest == "-1" else [self._reply() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == "-1" else self._bulk(int(rest))
        return rest

    def _bulk(self, size):
        data = self.file.read(size + 2)[:-2]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def make_certificates(directory):
    """A CA (ca.pem), and a certificate with its key for the server and for a client."""
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], cwd=directory, check=True, capture_output=True)

    directory.mkdir()
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new_key, "-days", 2, "-subj", "/CN=Redis test CA", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl("req", *new_key, "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", 2,
                "-copy_extensions", "copy", "-out", f"{name}.pem")


class Process:
    """What servers and Sentinels have in common: one process with a configuration file."""

    arguments = ()

    def __init__(self, directory, settings, password=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.password = password
        # Not in the directory: the path of a socket has to be short.
        self.socket_directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self.socket_directory / "redis.sock"
        self.port = own_port()
        self.config_file = self.directory / "redis.conf"
        self.log_file = self.directory / "redis.log"
        self.settings = {"port": self.port, "bind": "127.0.0.1", "unixsocket": self.socket, "dir": self.directory,
                         "daemonize": "no", "logfile": self.log_file} | settings
        self.process = None

    @property
    def address(self):
        return "127.0.0.1", self.port

    def write_config(self):
        lines = [f'{key} "{value}"' if value == "" or " " not in str(value) else f"{key} {value}"
                 for key, values in self.settings.items()
                 for value in (values if isinstance(values, list) else [values])]
        self.config_file.write_text("\n".join(lines) + "\n")

    def spawn(self):
        """Starts the process and returns at once."""
        assert self.process is None, "already running"
        program = shutil.which("redis-server")
        assert program, "redis-server is in PATH (scripts/deps test fetches it)"
        self.process = subprocess.Popen([program, str(self.config_file), *self.arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def start(self, timeout=START_TIMEOUT):
        self.spawn()
        eventually(self.answers, f"{self.log_file} says that it serves", timeout)
        return self

    def answers(self):
        assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.log_tail()}"
        try:
            return self.command("PING") == "PONG"
        except (OSError, RedisError):
            return False  # not there yet, or loading

    def connect(self, timeout=60):
        return Connection(self.socket, self.password, timeout=timeout)

    def command(self, *words, timeout=60):
        with self.connect(timeout) as c:
            return c.command(*words)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        """SIGTERM: it saves what it has and ends."""
        if self.process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        self.process = None

    def kill(self):
        """SIGKILL: what was not written is gone."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def pause(self):
        """Frozen: connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def log_tail(self, lines=20):
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def close(self):
        self.kill()
        shutil.rmtree(self.socket_directory, ignore_errors=True)


class Redis(Process):
    """A server. password: of the default user; tls: "on", or "mutual" when clients need a certificate; replica_of:
    another Redis; settings: lines of redis.conf, a list for a key that comes several times. All its settings are
    written anew by start(), so that change() and a restart do."""

    def __init__(self, directory, password=None, tls=None, replica_of=None, settings=None):
        super().__init__(directory, DURABLE | (settings or {}), password)
        if password:
            self.settings |= {"requirepass": password, "masterauth": password}
        self.tls = tls
        if tls:
            self._use_tls()
        if replica_of:
            self.settings["replicaof"] = f"127.0.0.1 {replica_of.port}"
        self.write_config()

    def _use_tls(self):
        self.certificates = self.directory / "certificates"
        make_certificates(self.certificates)
        self.settings |= {"port": 0, "tls-port": self.port, "tls-cert-file": self.certificates / "server.pem",
                          "tls-key-file": self.certificates / "server.key",
                          "tls-ca-cert-file": self.certificates / "ca.pem",
                          "tls-auth-clients": "yes" if self.tls == "mutual" else "no"}

    @property
    def url(self):
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def env(self):
        """The secret part of options(): what --set refuses."""
        return {"SEALPOST_REDIS_PASSWORD": self.password} if self.password else {}

    def options(self, **more):
        """The settings of a sealpost that keeps its queue here; with a password, its environment is `env`."""
        own = {"queue_driver": "redis", "redis_url": self.url}
        if self.tls:
            own["redis_ca_file"] = self.certificates / "ca.pem"
        if self.tls == "mutual":
            own |= {"redis_cert_file": self.certificates / "client.pem",
                    "redis_key_file": self.certificates / "client.key"}
        return own | more

    def change(self, **settings):
        """Other lines of redis.conf from the next start on; _ stands for -."""
        self.settings |= {key.replace("_", "-"): value for key, value in settings.items()}
        self.write_config()

    def config(self, key, value):
        """CONFIG SET, in the running server."""
        assert self.command("CONFIG", "SET", key, value) == "OK"

    def info(self, section):
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def replicate(self, other):
        """Follows another server, or nobody (None) as a master of its own."""
        self.command("REPLICAOF", *(("127.0.0.1", other.port) if other else ("NO", "ONE")))

    def wait_replicas(self, count=1):
        """Until this master has so many replicas that are in step."""
        def in_step():
            replicas = [v for k, v in self.info("replication").items() if k.startswith("slave") and "state=" in v]
            return sum("state=online" in r for r in replicas) >= count
        eventually(in_step, f"{count} replicas of port {self.port} online")
        assert self.command("WAIT", count, 10000) >= count


class Sentinel(Process):
    """Watches `master` under `name`; with a quorum of one, it alone decides on a fail-over."""

    arguments = ("--sentinel",)

    def __init__(self, directory, master, name="mymaster", quorum=1, down_after_ms=1000, password=None):
        super().__init__(directory, {}, password)
        self.name = name
        self.settings |= {"sentinel": [f"monitor {name} 127.0.0.1 {master.port} {quorum}",
                                       f"down-after-milliseconds {name} {down_after_ms}",
                                       f"failover-timeout {name} 10000"]}
        if master.password:
            self.settings["sentinel"].append(f"auth-pass {name} {master.password}")
        if password:
            self.settings["requirepass"] = password
        # Once: from its start on the file is the Sentinel's own.
        self.write_config()

    def master_port(self):
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def wait_replicas(self, count=1):
        """Until it knows so many replicas that could take over, so that a fail-over can succeed."""
        def known():
            replicas = self.command("SENTINEL", "REPLICAS", self.name)
            facts = [dict(zip(r[::2], r[1::2])) for r in replicas]
            return sum(f["flags"] == "slave" and f["master-link-status"] == "ok" for f in facts) >= count
        eventually(known, f"the Sentinel on port {self.port} knows {count} replicas")
