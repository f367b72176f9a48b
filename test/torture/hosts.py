"""Hosts of a test's own: network namespaces on one bridge, whose cables can be pulled.

A cut takes a host's link down: nothing gets through, and its own kernel notices. Half open is what a dead router makes:
what one host sends to another is dropped (a blackhole route), in one direction or both, and nobody is told.
"""
import itertools
import os
import shutil
import subprocess

from disks import Unable

serial = itertools.count()
HERE = 1  # the last byte of this side's address


class Side:
    """Something with an address. `inside` are the words that make ip work where it is."""

    def __init__(self, address, inside=()):
        self.address, self.inside = address, inside

    def drop_to(self, other):
        """From now on nothing from here reaches the other one, who is not told."""
        ip(*self.inside, "route", "replace", "blackhole", f"{other.address}/32")

    def heal(self):
        for route in ip(*self.inside, "route", "show", "type", "blackhole").splitlines():
            ip(*self.inside, "route", "del", "blackhole", route.split()[1])


class Host(Side):
    """One namespace with one address."""

    def __init__(self, network, name, number):
        self.namespace = f"{network.name}-{name}"
        self.cable = f"{network.name}.{number}"
        super().__init__(network.address(number), ("-n", self.namespace))
        ip("netns", "add", self.namespace)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self.cable, "master", network.name, "up")
        ip(*self.inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip(*self.inside, "link", "set", device, "up")

    @property
    def wrapper(self):
        """In front of a command that is to run on this host."""
        return ["ip", "netns", "exec", self.namespace]

    def cut(self):
        ip("link", "set", self.cable, "down")

    def heal(self):
        ip("link", "set", self.cable, "up")
        super().heal()


class Network:
    """A bridge with an address of ours, and hosts on it."""

    def __init__(self):
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise Unable("needs root and ip, for network namespaces")
        number = next(serial)
        # Both as unlike those of another run on this machine as a process id allows.
        self.name = f"sp{os.getpid() % 100000}{chr(ord('a') + number % 26)}"
        self.prefix = f"10.{200 + os.getpid() // 256 % 50}.{os.getpid() % 256}"
        self.hosts = []
        self.here = Side(self.address(HERE))
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.address(HERE)}/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def address(self, number):
        return f"{self.prefix}.{number}"

    def host(self, name):
        self.hosts.append(Host(self, name, HERE + 1 + len(self.hosts)))
        return self.hosts[-1]

    def heal(self):
        for side in (self.here, *self.hosts):
            side.heal()

    def close(self):
        """After the last process on it has ended."""
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True)
        subprocess.run(["ip", "link", "del", self.name], capture_output=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def ip(*words):
    """What it prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unable(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
