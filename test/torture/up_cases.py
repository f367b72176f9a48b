"""Random kills and power cuts of `sealpost up` under load."""
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from daemon import CLIENT, CommandFailed, make_template
from disks import Ext4, own_mounts
from faults import Faults
from ledger import Ledger, read_store
from load import LedgerLoad
from waiting import eventually

# A message whose delivery was under way is tried again soon.
SOON = {"retry_interval": "50ms", "lease_time": "1s", "disk_free_min": "1MiB"}
DISK_BYTES = 256 << 20
QUEUES = ("queue", "store")
# Messages acknowledged before the next fault; 0: while the first commit is under way.
SOMEWHERE = [0, 1, 3, 10, 30, 100, 300]
UNAVAILABLE = 5  # exit code of a command that may be repeated


@contextmanager
def up(directory, settings=None):
    """A daemon that is not started yet, with keys, CA and one client."""
    daemon = make_template(directory)
    daemon.settings |= SOON | (settings or {})
    try:
        yield daemon
    finally:
        daemon.kill()


def until_delivered(daemon, timeout=120):
    def drained():
        stats = daemon.json("queue", "stats")
        return stats["queued"] + stats["processing"] == 0 and stats
    return eventually(drained, "everything is delivered", timeout, interval=0.2)


def check_files(daemon):
    """The databases of a daemon that has stopped, by SQLite's own check."""
    found = []
    for file in sorted(f for q in QUEUES for f in (daemon.data / q).glob("*.db")):
        with sqlite3.connect(file) as db:
            answer = db.execute("PRAGMA integrity_check").fetchone()[0]
        if answer != "ok":
            found.append(f"{file.name}: {answer}")
    return found


def settle(daemon, ledger, load):
    """After the last fault: delivers what waits, compares the ledgers; (figures, what does not hold)."""
    load.stop()
    stats = until_delivered(daemon)
    comparison = ledger.compare(read_store(daemon.ready["admin_socket"]))
    daemon.stop()
    broken = [*comparison.broken(), *load.broken(), *check_files(daemon)]
    if stats["failed"]:
        broken.append(f"{stats['failed']} dead letters")
    figures = comparison.figures() | {"statuses": dict(load.statuses), "connections_broken": load.broken_connections}
    return figures, broken


# --- kills ---

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
        aim = self.load.acknowledged + random.choice(SOMEWHERE)
        eventually(lambda: self.load.acknowledged >= aim, "messages are accepted", interval=0.001)
        self.kill_daemon(random)
        self.start()

    def while_starting(self, random):
        self.kill_daemon(random)
        self.daemon.spawn()
        time.sleep(random.uniform(0, 1.2 * self.start_s))
        self.kill_daemon(random)
        self.start()

    def while_draining(self, random):
        aim = self.load.acknowledged + random.randrange(30)
        eventually(lambda: self.load.acknowledged >= aim, "messages are accepted", interval=0.001)
        self.daemon.signal(signal.SIGTERM)
        time.sleep(random.expovariate(1 / 0.05))
        self.kill_daemon(random)
        self.start()

    def signer(self, random):
        """The messages go on, and so does issuing: at most the request over which it died is refused, to be repeated."""
        children = [pid for thread in Path(f"/proc/{self.daemon.pid}/task").iterdir()
                    for pid in (thread / "children").read_text().split()]
        assert len(children) == 1, f"one child, the signer: {children}"
        pid, aim = self.daemon.pid, self.load.acknowledged + 10
        os.kill(int(children[0]), signal.SIGKILL)
        self.issued += 1
        eventually(self.issues, "a certificate is issued", timeout=10)
        eventually(lambda: self.load.acknowledged >= aim, "messages are accepted without a signer", interval=0.001)
        assert self.daemon.pid == pid and self.daemon.process.poll() is None

    def issues(self):
        try:
            return self.daemon.issue(f"after-{self.issued}")
        except CommandFailed as e:
            assert e.returncode == UNAVAILABLE, str(e)

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


# --- power ---

@contextmanager
def on_ext4(daemon, directory):
    """Moves the data directory onto a file system of its own."""
    own_mounts()
    template = directory / "template"
    daemon.data.rename(template)
    daemon.data.mkdir()
    disk = Ext4(directory / "image", daemon.data, DISK_BYTES)
    try:
        shutil.copytree(template, daemon.data, dirs_exist_ok=True)
        os.sync()
        yield disk
    finally:
        daemon.kill()
        disk.abandon()


def freeze(pid):
    """Until no thread of the process runs any code of its own: all are stopped, or in the kernel, waiting for a disk."""
    os.kill(pid, signal.SIGSTOP)

    def stands_still():
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
        return set(states) <= {"T", "D"}
    eventually(stands_still, f"process {pid} is frozen", interval=0)


def power_cut(daemon, disk, load, random, after):
    """Frozen first: a process must not outlive its power, not even by the millisecond in which ext4 may tell a sync
    that was under way when it was shut down that all is well."""
    aim = load.acknowledged + random.choice(after)
    eventually(lambda: load.acknowledged >= aim, "messages are accepted", interval=0.001)
    freeze(daemon.pid)
    disk.cut_power()
    daemon.kill()
    disk.unmount()
    disk.mount()


def power(directory, rounds):
    """The file system under the data directory is shut down at random moments, and what was not synced is gone."""
    ledger = Ledger(f"power {rounds.seed}")
    with up(directory) as daemon, on_ext4(daemon, directory) as disk:
        daemon.start()
        with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
            for random in rounds:
                power_cut(daemon, disk, load, random, SOMEWHERE)
                daemon.start()
            return settle(daemon, ledger, load)


def power_control(directory, rounds):
    """The same with syncs that do nothing: this one holds when messages are lost, or the power case shows nothing."""
    ledger = Ledger(f"control {rounds.seed}")
    with up(directory) as daemon, on_ext4(daemon, directory) as disk:
        faults = Faults(daemon.data, directory / "control")
        faults.lie_about_syncs()
        daemon.env.update(faults.env)
        for random in rounds:
            if not survives_unsynced(daemon, disk, ledger, random):
                return {"acknowledged": len(ledger.acknowledged), "starts_again": False}, []
        daemon.start()
        until_delivered(daemon)
        comparison = ledger.compare(read_store(daemon.ready["admin_socket"]))
    broken = [] if comparison.lost else ["nothing was lost: the power case would not notice a missing sync"]
    return comparison.figures() | {"starts_again": True}, broken


def survives_unsynced(daemon, disk, ledger, random):
    """Load until the cut; False: what the disk has kept is no data directory any more, and all in it is lost."""
    try:
        daemon.start()
    except AssertionError:
        return False
    with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
        power_cut(daemon, disk, load, random, [30, 100])
    return True
