"""Power loss: what was synced stays, the rest goes; no acknowledged message may be in the rest.

The last test shows that these would notice: with syncs that do nothing, messages are lost.
"""
import random

import pytest

from client import Client, Load
from daemon import Site
from faults import FULL, sample
from waiting import eventually

ROUNDS = 60 if FULL else 8


def run_until_the_power_goes(site, faults, call, skip, seed):
    """Load until the cut; the ids that were acknowledged before it."""
    daemon = site.daemon
    load = Load(daemon.address(), site.identity, connections=8)
    eventually(lambda: load.acknowledged, "load is under way")
    faults.cut_power(call, skip, seed)
    eventually(lambda: daemon.process.poll() is not None, f"the power goes at {call} {skip}")
    faults.clear()
    daemon.kill()
    return set(load.stop())


@pytest.mark.timeout(600 + 15 * ROUNDS)
@pytest.mark.parametrize("torn", [False, True], ids=["all un-synced lost", "half of it lost"])
def test_nothing_acknowledged_is_lost(faulty, torn):
    daemon, faults = faulty
    site = Site(daemon.start())
    random_source, acknowledged = random.Random(7), set()
    for round_number in range(ROUNDS):
        call = random_source.choice(["sync", "sync", "write"])
        skip = random_source.choice([0, 1, 2, 3, 10, 50, 200])
        acknowledged |= run_until_the_power_goes(site, faults, call, skip, round_number + 1 if torn else 0)
        daemon.start()
    eventually(lambda: acknowledged <= daemon.delivered(), "every acknowledged message is there", interval=0.5)


@pytest.mark.parametrize("skip", sample(range(0, 40), 5))
def test_power_goes_while_a_fresh_directory_is_made(make_daemon, make_faults, skip):
    """Keys and CA too: started again, the daemon finishes what the cut left half made."""
    daemon = make_daemon(fresh=True)
    faults = make_faults(daemon)
    faults.cut_power("sync", skip)
    daemon.spawn()
    eventually(lambda: daemon.process.poll() is not None or daemon.ready_file.exists(), "cut, or started before it")
    faults.clear()
    daemon.kill()
    daemon.start()
    with Client(daemon.address(), daemon.issue("first")) as client:
        assert client.post().status == 202


def test_syncs_that_lie_are_noticed(faulty):
    daemon, faults = faulty
    site = Site(daemon.start())
    daemon.cli("queue", "pause", "delivery")
    faults.lie_about_syncs()
    with site.client() as client:
        acknowledged = {client.post(f"{i}").json["message_id"] for i in range(50)}
        faults.cut_power("write")
        with pytest.raises(Exception):
            client.post("the one whose write cuts the power")
    daemon.kill()
    faults.clear()
    daemon.start()
    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: (s := daemon.json("queue", "stats"))["queued"] + s["processing"] == 0, "what is left is delivered")
    assert acknowledged - daemon.delivered(), "un-synced messages survived: these tests would not notice a missing sync"
