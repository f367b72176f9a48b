"""Kills, standstills and wrong clocks of `sealpost up` under load."""
import errno
import os
import signal
import time
from collections import Counter
from pathlib import Path

from bed import LEASE_S, SOMEWHERE, accept_some, available, deliver_one, freeze, metric, settle, thaw_after, up
from daemon import CLIENT
from faults import Faults
from ledger import Ledger
from load import LedgerLoad
from waiting import eventually

DAY_S = 86400
# The clock is wrong by BASE_S to begin with, so that certificates issued by the true one are valid a day earlier too.
BASE_S = 2 * DAY_S
STEPS_S = [-DAY_S, -3600, -1, 0, 1, 3600, DAY_S]


class Killer:
    """The ways to kill a daemon, each leaving it running again."""

    def __init__(self, daemon, load):
        self.daemon, self.load = daemon, load
        self.start_s = 1.0
        self.issued = 0

    def kill_daemon(self, random):
        """Alone, or with the signer: what is left of it must not be in the way of the next one."""
        if random.random() < 0.5:
            self.daemon.kill()
        else:
            os.kill(self.daemon.process.pid, signal.SIGKILL)
            self.daemon.wait()

    def start(self):
        began = time.monotonic()
        self.daemon.start()
        self.start_s = time.monotonic() - began

    def under_load(self, random):
        accept_some(self.load, random.choice(SOMEWHERE))
        self.kill_daemon(random)
        self.start()

    def while_starting(self, random):
        self.kill_daemon(random)
        self.daemon.spawn()
        time.sleep(random.uniform(0, 1.2 * self.start_s))
        self.kill_daemon(random)
        self.start()

    def while_draining(self, random):
        accept_some(self.load, random.randrange(30))
        self.daemon.signal(signal.SIGTERM)
        time.sleep(random.expovariate(1 / 0.05))
        self.kill_daemon(random)
        self.start()

    def signer(self, random):
        """Messages go on, and so does issuing: at most the request over which it died is refused, to be repeated."""
        children = [pid for thread in Path(f"/proc/{self.daemon.pid}/task").iterdir()
                    for pid in (thread / "children").read_text().split()]
        assert len(children) == 1, f"one child, the signer: {children}"
        pid = self.daemon.pid
        os.kill(int(children[0]), signal.SIGKILL)
        self.issued += 1
        eventually(lambda: available(self.daemon.issue, f"after-{self.issued}"), "a certificate is issued")
        accept_some(self.load, 10)
        assert self.daemon.pid == pid and self.daemon.process.poll() is None

    def one(self, random):
        kind = random.choices([self.under_load, self.while_starting, self.while_draining, self.signer],
                              weights=[6, 2, 2, 1])[0]
        kind(random)
        return kind.__name__


def kill(directory, rounds):
    """SIGKILL at random moments: under load, while starting, while draining; and of the signer alone."""
    ledger, kinds = Ledger(f"kill {rounds.seed}"), Counter()
    with up(directory) as daemon:
        daemon.start()
        with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
            killer = Killer(daemon, load)
            for random in rounds:
                kinds[killer.one(random)] += 1
            figures, broken = settle(daemon, ledger, load)
    return figures | {"kills": dict(kinds)}, broken


def stand_still(directory, rounds):
    """The whole process is frozen for longer than its leases, and thawed: what it settles then is stale."""
    ledger = Ledger(f"freeze {rounds.seed}")
    with up(directory) as daemon:
        daemon.start()
        with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
            for random in rounds:
                accept_some(load, random.choice(SOMEWHERE))
                freeze(daemon.pid)
                thaw_after(daemon.pid, random.uniform(0.8, 1.6) * LEASE_S)
            deliver_one(daemon, load.identity, ledger)
            stale = metric(daemon, "sealpost_leases_lost_total")
            figures, broken = settle(daemon, ledger, load)
    return figures | {"settled_stale": int(stale)}, broken


def clock(directory, rounds):
    """The wall clock jumps by up to a day, forth and back, also across restarts, while deliveries wait for a retry."""
    ledger = Ledger(f"clock {rounds.seed}")
    with up(directory) as daemon:
        faults = Faults(daemon.data, directory / "control")
        daemon.env.update(faults.env)
        faults.set_clock(BASE_S)
        daemon.start()
        with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
            for random in rounds:
                accept_some(load, random.choice(SOMEWHERE))
                faults.fail("sync", errno.EIO, repeat=random.choice([0, 1, 5]))
                restart = random.random() < 0.2
                if restart:
                    daemon.kill()
                    faults.clear()
                faults.set_clock(BASE_S + random.choice(STEPS_S))
                if restart:
                    daemon.start()
                deliver_one(daemon, load.identity, ledger)
            return settle(daemon, ledger, load)
