"""Roles apart under torture: two proxies that clients meet in turn, four workers, and short leases."""
import itertools

from bed import SOON
from daemon import CLIENT
from roles import Roles, here, make_roles_template

LEASE_S = 2.0
APART = {"lease_time": f"{LEASE_S:g}s"}


class Deployment(Roles):
    """place(name) says where a role lives; redis_options are the settings that lead to the queue, proxy_settings those
    of the proxies alone."""

    def __init__(self, directory, redis_options, place=here, proxy_settings=None):
        make_roles_template(directory, place)
        super().__init__(directory, SOON | APART | redis_options, place=place, proxies=2, workers=4)
        for proxy in self.proxies:
            proxy.settings |= proxy_settings or {}
        self.turns = itertools.count()
        self.identity = self.server.issued(CLIENT)

    def address(self):
        """Of the proxies in turn; raises KeyError for one that does not run."""
        return self.proxies[next(self.turns) % len(self.proxies)].address()

    def check_logs(self):
        for role in self.roles:
            role.check_log()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
