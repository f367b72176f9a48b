"""kill -9 under load: whatever was acknowledged is there, once."""
import os
import random

import pytest

from client import Load
from waiting import eventually

KILLS = int(os.environ.get("SEALPOST_TEST_KILLS", "40"))


@pytest.mark.crash
@pytest.mark.timeout(60 + 15 * KILLS)
def test_killed_under_load_again_and_again(site):
    daemon, random_source = site.daemon, random.Random(1)
    acknowledged = set()
    for round_number in range(KILLS):
        load = Load(daemon.address(), site.identity, connections=8)
        # Somewhere into the load, each time elsewhere: 0 is while the first commit is under way.
        aim = random_source.choice([0, 1, 10, 100, 500])
        eventually(lambda: len(load.acknowledged) >= aim, f"round {round_number}: {aim} acknowledged")
        daemon.kill()
        new = load.stop()
        assert not acknowledged & set(new), "an id was given out twice"
        acknowledged |= set(new)
        daemon.start()
    eventually(lambda: acknowledged <= daemon.delivered(), "every acknowledged message is delivered", interval=0.5)
    # A message whose 202 did not get out may be there too; delivered() has checked that none is there twice.
    stats = daemon.json("queue", "stats")
    assert stats["failed"] == 0, "a crash makes no dead letters"


def test_a_second_daemon_on_the_same_data_is_refused(site, make_daemon):
    other = make_daemon()
    other.data = site.daemon.data
    other.spawn()
    assert other.wait() == 1
    assert str(site.daemon.data) in other.log()
