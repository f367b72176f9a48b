"""Roles apart: a main server, proxies and workers, each a process of its own, with their queue on one Redis.

RolesApart can stand in for a Sealpost (daemon.py): its command line is the main server's, where it listens for clients
is the first proxy, what it said is what all said. What is a matter of one process (its files, its metrics, its health)
is asked of .server, .proxy or .worker. Certificates are made once, in a template.
"""
import shutil
from pathlib import Path

from daemon import CLIENT, START_TIMEOUT, Sealpost
from redis import Redis, free_port

LOOPBACK = "127.0.0.1"
# What Site and tests ask of the ready file of the process that clients talk to; all else is the main server's.
OF_THE_PROXY = ("pid", "ingest", "metrics")
NAMES = {"proxy": ["proxy-0", "proxy-1"], "worker": ["worker-0", "worker-1", "worker-2", "worker-3"]}


def make_roles_template(directory):
    """The main server's data, the client's certificate, and one for every role that a test may want."""
    server = Sealpost(Path(directory) / "server", settings={"tls_names": LOOPBACK})
    server.cli("init")
    for role, names in NAMES.items():
        for name in names:
            server.issue(name, "--role", role, *(("--san", LOOPBACK) if role == "proxy" else ()))
    server.issue(CLIENT, "--domain", "example.com")
    return Path(directory)


class RolesApart:
    """make_roles_template's copy in `directory`. settings and env go to every role, more can be given to one through
    its own .settings before it starts."""

    def __init__(self, directory, settings=None, env=None, wrapper=(), proxies=1, workers=1, redis=None):
        self.directory = Path(directory)
        self.redis = redis or Redis(self.directory / "redis")
        listen = {"server_listen": f"{LOOPBACK}:{free_port()}"}
        # The others have its address in their settings, so it stays over restarts.
        common = self.redis.options(server_url=f"https://{listen['server_listen']}") | (settings or {})
        env = self.redis.env | (env or {})
        self.server = Sealpost(self.directory / "server", common | listen, env, wrapper, command="server")
        self.proxies = [self._role("proxy", name, common, env, wrapper) for name in NAMES["proxy"][:proxies]]
        self.workers = [self._role("worker", name, common, env, wrapper) for name in NAMES["worker"][:workers]]
        self.data, self.certs = self.server.data, self.server.certs
        self.cli, self.json, self.issue, self.issued, self.messages, self.delivered = (
            self.server.cli, self.server.json, self.server.issue, self.server.issued, self.server.messages,
            self.server.delivered)

    def _role(self, role, name, common, env, wrapper):
        files = {"cert_file": self.directory / "server" / "certs" / f"{name}.pem",
                 "key_file": self.directory / "server" / "certs" / f"{name}.key",
                 "ca_file": self.directory / "server" / "certs" / "ca.pem"}
        (self.directory / name).mkdir(exist_ok=True)
        return Sealpost(self.directory / name, common | files, env, wrapper, command=role)

    @property
    def roles(self):
        return [self.server, *self.proxies, *self.workers]

    @property
    def proxy(self):
        return self.proxies[0]

    @property
    def worker(self):
        return self.workers[0]

    # --- life and death ---

    def start(self, timeout=START_TIMEOUT):
        self.spawn(timeout)
        self.wait_ready(timeout)
        return self

    def spawn(self, timeout=START_TIMEOUT):
        """The main server is waited for: a proxy that has never heard of it has no key to seal with."""
        if self.redis.process is None:
            self.redis.start()
        self.server.start(timeout)
        for role in (*self.proxies, *self.workers):
            role.spawn()

    def wait_ready(self, timeout=START_TIMEOUT):
        for role in (*self.proxies, *self.workers):
            role.wait_ready(timeout)

    def wait(self, timeout=60):
        """0 once all have ended by themselves without a failure."""
        return max(role.wait(timeout) for role in self.roles)

    def stop(self):
        """Clients' side first, as an operator would."""
        for role in (*self.proxies, *self.workers, self.server):
            role.stop()

    def kill(self):
        for role in self.roles:
            role.kill()

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        for role in (*self.proxies, *self.workers, self.server):
            role.close()
        self.redis.close()

    # --- as one ---

    def signal(self, number):
        for role in self.roles:
            role.signal(number)

    def configure(self, settings):
        for role in self.roles:
            role.configure(settings)

    @property
    def ready(self):
        return self.server.ready | {k: v for k, v in self.proxy.ready.items() if k in OF_THE_PROXY}

    @property
    def pid(self):
        return self.proxy.pid

    @property
    def process(self):
        return self.proxy.process

    def address(self, listener="ingest"):
        return (self.server if listener == "server" else self.proxy).address(listener)

    def log(self):
        return "".join(role.log() for role in self.roles)

    def log_tail(self, lines=40):
        return "\n".join(f"--- {role.directory.name}\n{role.log_tail(lines)}" for role in self.roles)


def copy_template(template, directory):
    """Nothing in a template depends on where it is."""
    shutil.copytree(template, directory)
    return Path(directory)
