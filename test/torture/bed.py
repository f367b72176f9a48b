"""What the cases share: a daemon with its load, and the comparison at the end."""
import os
import signal
import sqlite3
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from client import Client
from daemon import CommandFailed, make_template
from ledger import read_store
from waiting import NeverHappened, eventually

# A message whose delivery was under way is tried again soon.
SOON = {"retry_interval": "50ms", "lease_time": "1s", "disk_free_min": "1MiB"}
LEASE_S = 1.0
# Messages acknowledged before the next fault; 0: while the first commit is under way.
SOMEWHERE = [0, 1, 3, 10, 30, 100, 300]
UNAVAILABLE = 5  # exit code of a command that may be repeated
DATABASES = ("queue", "store")


@contextmanager
def up(directory, settings=None):
    """A daemon that is not started yet, with keys, CA and one client."""
    daemon = make_template(directory)
    daemon.settings |= SOON | (settings or {})
    try:
        yield daemon
    finally:
        daemon.kill()


def accept_some(load, count, timeout=120):
    """Until so many more are acknowledged."""
    aim = load.acknowledged + count
    try:
        eventually(lambda: load.acknowledged >= aim, f"{count} messages are accepted", timeout, interval=0.001)
    except NeverHappened as e:
        raise NeverHappened(f"{e}; last trouble: {load.trouble}") from None


def available(command, *args):
    """What it returns; None where it is refused for now, to be repeated."""
    try:
        return command(*args)
    except CommandFailed as e:
        if e.returncode != UNAVAILABLE:
            raise
        return None


def until_delivered(daemon, timeout=300):
    def drained():
        stats = available(daemon.json, "queue", "stats")
        return stats and stats["queued"] + stats["processing"] == 0 and stats
    return eventually(drained, "everything is delivered", timeout, interval=0.2)


def deliver_one(daemon, identity, ledger, timeout=120):
    """A message of now gets through, whatever went on before."""
    with Client(daemon.address(), identity) as client:
        attempt = ledger.attempt(keyed=True)

        def accepted():
            answer = client.post(attempt.text, headers=attempt.headers)
            return answer.status == 202 and answer.json["message_id"]
        message_id = eventually(accepted, "a message is accepted", timeout)
        ledger.acknowledge(attempt, message_id)
        eventually(lambda: client.get(f"/api/v1/messages/{message_id}").json["status"] == "delivered",
                   f"{message_id} is delivered", timeout)


def check_files(daemon):
    """The databases of a daemon that has stopped, by SQLite's own check."""
    found = []
    for file in sorted(f for d in DATABASES for f in (daemon.data / d).glob("*.db")):
        with sqlite3.connect(file) as db:
            answer = db.execute("PRAGMA integrity_check").fetchone()[0]
        if answer != "ok":
            found.append(f"{file.name}: {answer}")
    return found


def compare_in_the_end(daemon, ledger, patience=30):
    """A process's counts of a queue that others share may be a moment old, so that the last messages are still under way
    when it says that none is left. What is lost stays lost."""
    deadline = time.monotonic() + patience
    while True:
        comparison = ledger.compare(read_store(daemon.ready["admin_socket"]))
        if not comparison.lost or time.monotonic() > deadline:
            return comparison
        time.sleep(0.5)


def settle(daemon, ledger, load, stop=None, timeout=300):
    """After the last fault: delivers what waits, compares the ledgers; (figures, what does not hold)."""
    load.stop()
    stats = until_delivered(daemon, timeout)
    comparison = compare_in_the_end(daemon, ledger)
    (stop or daemon.stop)()
    broken = [*comparison.broken(), *load.broken(), *check_files(daemon)]
    if stats["failed"]:
        broken.append(f"{stats['failed']} dead letters")
    figures = comparison.figures() | {"statuses": dict(load.statuses), "connections_broken": load.broken_connections}
    return figures, broken


def freeze(pid):
    """Until no thread of the process runs code of its own: all are stopped, or in the kernel, waiting for a disk."""
    os.kill(pid, signal.SIGSTOP)

    def stands_still():
        try:
            states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):
            return False  # a thread has ended just before it would have been stopped
        return set(states) <= {"T", "D"}
    eventually(stands_still, f"process {pid} is frozen", interval=0)


def thaw_after(pid, seconds):
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def metric(daemon, name):
    """The value of a metric; the name has its labels with it."""
    with urllib.request.urlopen(daemon.ready["metrics"] + "/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), 0.0)
