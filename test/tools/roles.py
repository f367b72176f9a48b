"""Roles apart: a main server, proxies and workers, each a process of its own, with their queue on one Redis.

RolesApart can stand in for a Sealpost (daemon.py): its command line is the main server's, where it listens for clients
is the first proxy, what it said is what all said. What is a matter of one process (its files, its metrics, its health)
is asked of .server, .proxy or .worker. Certificates are made once, in a template.
"""
import http.client
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from client import Client
from daemon import CLIENT, START_TIMEOUT, Sealpost
from ports import own_port
from redis import Redis
from waiting import eventually

LOOPBACK = "127.0.0.1"
# What Site and tests ask of the ready file of the process that clients talk to; all else is the main server's.
OF_THE_PROXY = ("pid", "ingest", "metrics")
# Options of `cert issue` after which there is nobody whom a proxy lets in, or no key to try it with.
NO_CLIENTS = {"proxy", "worker", "server", "admin", "--csr"}
NAMES = {"proxy": ["proxy-0", "proxy-1"], "worker": ["worker-0", "worker-1", "worker-2", "worker-3"]}


@dataclass(frozen=True)
class Place:
    """Where a role runs: an address, and what stands before its command."""
    address: str = LOOPBACK
    wrapper: tuple = ()


def here(_name):
    return Place()


def make_roles_template(directory, place=here):
    """The main server's data, the client's certificate, and one for every role that a test may want."""
    server = Sealpost(Path(directory) / "server", settings={"tls_names": place("server").address})
    server.cli("init")
    for role, names in NAMES.items():
        for name in names:
            server.issue(name, "--role", role, *(("--san", place(name).address) if role == "proxy" else ()))
    server.issue(CLIENT, "--domain", "example.com")
    return Path(directory)


class Roles:
    """make_roles_template's copy in `directory`. settings (where the queue is, for one) and env go to every role, more
    can be given to one through its own .settings before it starts; place(name) says where it runs."""

    def __init__(self, directory, settings, env=None, place=here, proxies=1, workers=1):
        self.directory = Path(directory)
        self.certs = self.directory / "server" / "certs"
        address = place("server").address
        # The others have its address in their settings, so it stays over restarts.
        listen = {"server_listen": f"{address}:{own_port()}", "tls_names": address}
        common = {"server_url": f"https://{listen['server_listen']}"} | settings
        self.server = self._role("server", "server", place("server"), common | listen, env)
        self.proxies = [self._apart("proxy", name, place(name), common, env) for name in NAMES["proxy"][:proxies]]
        self.workers = [self._apart("worker", name, place(name), common, env) for name in NAMES["worker"][:workers]]

    def _role(self, role, name, place, settings, env):
        (self.directory / name).mkdir(exist_ok=True)
        listen = {f"{listener}_listen": f"{place.address}:0" for listener in ("ingest", "server", "portal")}
        return Sealpost(self.directory / name, listen | settings, dict(env or {}), place.wrapper, command=role)

    def _apart(self, role, name, place, settings, env):
        files = {"cert_file": self.certs / f"{name}.pem", "key_file": self.certs / f"{name}.key",
                 "ca_file": self.certs / "ca.pem"}
        return self._role(role, name, place, settings | files, env)

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
        self.server.start(timeout)
        for role in (*self.proxies, *self.workers):
            role.spawn()

    def wait_ready(self, timeout=START_TIMEOUT):
        for role in (*self.proxies, *self.workers):
            role.wait_ready(timeout)

    def wait(self, timeout=120):
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
        """Proxies first. What one of them says at its end keeps none of the others running."""
        with ExitStack() as ends:
            for role in (self.server, *self.workers, *self.proxies):
                ends.callback(role.close)


class RolesApart(Roles):
    """Roles on a Redis of their own, which starts and ends with them; or on one that others use too."""

    def __init__(self, directory, settings=None, env=None, wrapper=(), proxies=1, workers=1, redis=None):
        self.redis = redis or Redis(Path(directory) / "redis")
        super().__init__(directory, self.redis.options() | (settings or {}), self.redis.env | (env or {}),
                         lambda _name: Place(wrapper=tuple(wrapper)), proxies, workers)
        self.data = self.server.data
        self.cli, self.json, self.issued, self.messages, self.delivered = (
            self.server.cli, self.server.json, self.server.issued, self.server.messages, self.server.delivered)

    def spawn(self, timeout=START_TIMEOUT):
        if self.redis.process is None:
            self.redis.start()
        super().spawn(timeout)

    def close(self):
        with ExitStack() as ends:
            ends.callback(self.redis.close)
            super().close()

    # --- as one ---

    def issue(self, name, *options):
        """As Sealpost's. The proxies hear of it by themselves, a moment later; a test may use it at once."""
        identity = self.server.issue(name, *options)
        if not NO_CLIENTS & set(options):
            for proxy in (p for p in self.proxies if p.ready):
                eventually(lambda p=proxy: lets_in(p, identity), f"{proxy.directory.name} knows {name}")
        return identity

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


def lets_in(proxy, identity):
    try:
        with Client(proxy.address(), identity) as client:
            return client.get("/livez").status == 200
    except (OSError, http.client.HTTPException):
        return False


def copy_template(template, directory):
    """Nothing in a template depends on where it is."""
    shutil.copytree(template, directory)
    return Path(directory)
