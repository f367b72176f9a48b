"""Roles apart: one main server, some proxies and workers, each a process of its own, on one Redis."""
import itertools
from dataclasses import dataclass

from bed import SOON
from daemon import CLIENT, Sealpost
from redis import free_port

LOOPBACK = "127.0.0.1"
LEASE_S = 2.0
APART = {"lease_time": f"{LEASE_S:g}s"}


@dataclass
class Place:
    """Where a role runs: an address, and what stands before its command."""
    address: str = LOOPBACK
    wrapper: tuple = ()


class Role(Sealpost):
    """`sealpost proxy`, `worker` or `server`."""

    def __init__(self, directory, command, place, settings):
        listen = {f"{name}_listen": f"{place.address}:0" for name in ("ingest", "server", "portal")}
        super().__init__(directory, listen | SOON | APART | settings, wrapper=place.wrapper, command=command)
        self.place = place


class Deployment:
    """place(name) says where a role lives; redis_options are the settings that lead to the queue, proxy_settings those
    of the proxies alone."""

    def __init__(self, directory, redis_options, proxies, workers, place, proxy_settings=None):
        self.settings = redis_options
        self.role_settings = {"proxy": proxy_settings or {}, "worker": {}}
        self.server = self._make_server(directory / "server", place("server"))
        self.proxies = [self._make_role(directory, "proxy", i, place) for i in range(proxies)]
        self.workers = [self._make_role(directory, "worker", i, place) for i in range(workers)]
        self.turns = itertools.count()
        self.identity = self.server.issue(CLIENT, "--domain", "example.com")

    def _make_server(self, directory, place):
        directory.mkdir()
        # The others have its address in their settings, so it stays over restarts.
        listen = {"server_listen": f"{place.address}:{free_port()}", "tls_names": place.address}
        server = Role(directory, "server", place, self.settings | listen)
        self.server_url = f"https://{listen['server_listen']}"
        server.cli("init")
        return server

    def _make_role(self, directory, role, number, place):
        name = f"{role}-{number}"
        where = place(name)
        names = ("--san", where.address) if role == "proxy" else ()
        issued = self.server.issue(name, "--role", role, *names)
        (directory / name).mkdir()
        files = {"cert_file": issued.cert, "key_file": issued.key, "ca_file": issued.ca,
                 "server_url": self.server_url}
        return Role(directory / name, role, where, self.settings | files | self.role_settings[role])

    @property
    def roles(self):
        return [self.server, *self.proxies, *self.workers]

    def start(self):
        self.server.start()
        for role in (*self.proxies, *self.workers):
            role.start()
        return self

    def address(self):
        """Of the proxies in turn; raises KeyError for one that does not run."""
        return self.proxies[next(self.turns) % len(self.proxies)].address()

    def kill(self):
        for role in self.roles:
            role.kill()

    def stop(self):
        """Clients' side first, as an operator would."""
        for role in (*self.proxies, *self.workers, self.server):
            role.stop()

    def check_logs(self):
        for role in self.roles:
            role.check_log()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
