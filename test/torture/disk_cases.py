"""Power cuts and failing disks of `sealpost up` under load."""
import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager

from bed import SOMEWHERE, accept_some, deliver_one, freeze, settle, until_delivered, up
from daemon import CLIENT
from disks import Ext4, Unable, own_mounts
from faults import Faults, still_runs
from ledger import Ledger, read_store
from load import LedgerLoad
from waiting import eventually

DISK_BYTES = 256 << 20
# What SQLite does to a disk; strace makes it fail. `write` is left out: it also wakes threads up.
DISK_CALLS = ["pwrite64", "fdatasync", "ftruncate"]
ERRORS = ["EIO", "ENOSPC"]
# strace's `when`: the n-th call of each thread, once; or every one from there on.
TIMES = ["1", "2", "5", "1+", "3+"]


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


def power_cut(daemon, disk, load, random, after):
    """Frozen first: a process must not outlive its power, not even by the millisecond in which ext4 may tell a sync
    that was under way when it was shut down that all is well."""
    accept_some(load, random.choice(after))
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


@contextmanager
def failing(pid, call, error, when):
    """While it lasts, strace is attached and lets that call fail."""
    if not shutil.which("strace"):
        raise Unable("needs strace")
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={call}",
                               "-e", f"inject={call}:error={error}:when={when}"], stderr=subprocess.PIPE)
    try:
        eventually(lambda: traced(pid) or tracer.poll() is not None, "strace is attached", interval=0.001)
        if tracer.poll() is not None:
            raise Unable(tracer.stderr.read().decode().strip())
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)
        tracer.wait()
        tracer.stderr.close()


def traced(pid):
    with open(f"/proc/{pid}/status") as status:
        return not any(line.split() == ["TracerPid:", "0"] for line in status)


def disk(directory, rounds):
    """Writes, syncs and truncations fail with EIO and ENOSPC, once or as long as strace is attached."""
    ledger, faults, restarts = Ledger(f"disk {rounds.seed}"), Counter(), 0
    with up(directory) as daemon:
        daemon.start()
        with LedgerLoad(ledger, daemon.address, daemon.issued(CLIENT)) as load:
            for random in rounds:
                call, error, when = random.choice(DISK_CALLS), random.choice(ERRORS), random.choice(TIMES)
                with failing(daemon.pid, call, error, when):
                    load.stopping.wait(random.uniform(0.05, 0.5))
                faults[f"{call} {error} {'once' if when.isdigit() else 'for good'}"] += 1
                if not still_runs(daemon.process):
                    code, restarts = daemon.wait(), restarts + 1
                    assert code > 0, f"ended with {code}: a daemon may give up, but not crash\n{daemon.log_tail()}"
                    daemon.start()
                deliver_one(daemon, load.identity, ledger)
            figures, broken = settle(daemon, ledger, load)
    return figures | {"faults": dict(faults), "gave_up": restarts}, broken
