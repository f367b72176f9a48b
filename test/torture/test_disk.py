"""Disks that fail or are full, once or for good, and memory that runs out: nothing is acknowledged that is not
durable, the answer is 503, and when the fault is gone the daemon works again (by itself, or after a restart where
it ended)."""
import errno
import itertools

import pytest

from client import Client
from daemon import Site
from faults import FOR_GOOD, error_name, sample, still_runs
from waiting import eventually

DISK_FAULTS = list(itertools.product(["write", "sync"], [errno.EIO, errno.ENOSPC], [1, FOR_GOOD]))
POSTS = 40
# A message whose delivery hit the fault is tried again soon, also where the fault swallowed the failure itself.
SOON = {"retry_interval": "50ms", "lease_time": "1s"}


def post_many(site, count):
    """(ids acknowledged, other statuses); a connection that breaks is opened anew, a daemon that is gone ends it."""
    acknowledged, refused = set(), []
    client = site.client()
    for i in range(count):
        try:
            answer = client.post(f"message {i}")
        except OSError:
            client.close()
            if not still_runs(site.daemon.process, 0.2):
                break
            client = site.client()
            continue
        if answer.status == 202:
            acknowledged.add(answer.json["message_id"])
        else:
            refused.append(answer)
    client.close()
    return acknowledged, refused


def works_again(site):
    """After the fault: the daemon accepts again; one that has ended is started, as systemd would."""
    daemon = site.daemon
    if not still_runs(daemon.process):
        code = daemon.wait()
        assert code > 0, f"ended with {code}: a daemon may give up, but not crash\n{daemon.log_tail()}"
        daemon.start()

    def accepts():
        try:
            with Client(daemon.address(), site.identity) as client:
                answer = client.post("after the fault")
                return answer.status == 202 and answer.json["message_id"]
        except OSError:
            return None
    return eventually(accepts, "messages are accepted again")


def check_ledger(site, acknowledged):
    eventually(lambda: acknowledged <= site.daemon.delivered(), "every acknowledged message is delivered",
               timeout=60, interval=0.2)
    assert site.daemon.json("queue", "stats")["failed"] == 0, "a fault makes no dead letters"


@pytest.mark.parametrize("call,error,repeat", DISK_FAULTS,
                         ids=[f"{c}-{error_name(e)}-{'once' if r == 1 else 'for good'}" for c, e, r in DISK_FAULTS])
@pytest.mark.parametrize("skip", sample(range(0, 60), 3))
def test_disk_fault_under_load(faulty, call, error, repeat, skip):
    daemon, faults = faulty
    daemon.settings |= SOON
    site = Site(daemon.start())
    faults.fail(call, error, skip, repeat)
    acknowledged, refused = post_many(site, POSTS)
    assert {r.status for r in refused} <= {503}
    for answer in refused:
        assert answer.json["code"] == "unavailable" and int(answer.header("retry-after")) >= 1
    faults.clear()
    acknowledged.add(works_again(site))
    check_ledger(site, acknowledged)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=error_name)
def test_readiness_tells_of_a_disk_that_is_gone(faulty, error):
    daemon, faults = faulty
    site = Site(daemon.start())
    faults.fail("write", error, repeat=FOR_GOOD)
    with site.client() as client:
        assert client.post().status == 503
    if still_runs(daemon.process, 0.2):
        with site.client() as client:
            assert client.get("/readyz").status == 503
            assert client.get("/livez").status == 200
    faults.clear()
    check_ledger(site, {works_again(site)})


@pytest.mark.parametrize("skip", sample(range(0, 2000), 12))
def test_one_allocation_fails_under_load(faulty, skip):
    daemon, faults = faulty
    daemon.settings |= SOON
    site = Site(daemon.start())
    faults.fail("alloc", errno.ENOMEM, skip)
    acknowledged, refused = post_many(site, POSTS)
    assert {r.status for r in refused} <= {500, 503}
    faults.clear()
    acknowledged.add(works_again(site))
    check_ledger(site, acknowledged)


def test_memory_is_gone_for_a_while(faulty):
    daemon, faults = faulty
    daemon.settings |= SOON
    site = Site(daemon.start())
    faults.fail("alloc", errno.ENOMEM, skip=50, repeat=500)
    acknowledged, _ = post_many(site, POSTS)
    faults.clear()
    acknowledged.add(works_again(site))
    check_ledger(site, acknowledged)
