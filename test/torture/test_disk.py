"""Disks that fail or are full, once or for good, and memory that runs out: nothing is acknowledged that is not
durable, the answer is 503, and when the fault is gone the daemon works again (by itself, or after a restart where
it ended)."""
import errno
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from client import NUMBER, Client, RawTLS
from daemon import Site
from faults import FOR_GOOD, error_name, sample, still_runs
from http2 import Http2
from waiting import eventually

DISK_FAULTS = list(itertools.product(["write", "sync"], [errno.EIO, errno.ENOSPC], [1, FOR_GOOD]))
POSTS = 40
WAITING_MAX = 64
MESSAGE = json.dumps({"sender_number": NUMBER, "message_body": "x"}).encode()
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


@pytest.mark.parametrize("repeat", [1, FOR_GOOD], ids=["once", "for good"])
@pytest.mark.parametrize("skip", sample(range(0, 200), 4))
def test_reads_fail_while_starting(faulty, skip, repeat):
    """Files that cannot be read now are not damaged: it gives up, or starts without them, and nothing is lost."""
    daemon, faults = faulty
    daemon.settings |= SOON
    site = Site(daemon.start())
    daemon.cli("queue", "pause", "delivery")
    acknowledged, _ = post_many(site, POSTS)
    daemon.kill()
    faults.fail("read", errno.EIO, skip, repeat)
    daemon.spawn()
    eventually(lambda: daemon.process.poll() is not None or daemon.ready_file.exists(), "given up, or started")
    code = daemon.process.poll()
    assert code is None or code > 0, f"ended with {code}: a daemon may give up, but not crash\n{daemon.log_tail()}"
    faults.clear()
    daemon.kill()
    daemon.start()
    daemon.cli("queue", "resume", "delivery")
    check_ledger(site, acknowledged)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=error_name)
def test_readiness_tells_of_a_disk_that_is_gone(faulty, error):
    daemon, faults = faulty
    site = Site(daemon.start())
    faults.fail("write", error, repeat=FOR_GOOD)
    with site.client() as client:
        assert client.post().status == 503
    try:
        with site.client() as client:
            statuses = [client.get(path).status for path in ("/readyz", "/livez")]
    except OSError:
        assert not still_runs(daemon.process, 60), "it answers, or gives up"
    else:
        assert statuses == [503, 200]
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


def pipelined(raw, count):
    request = b"POST /api/v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    request += b"Content-Length: %d\r\n" % len(MESSAGE)
    last = request + b"Connection: close\r\n\r\n" + MESSAGE
    raw.send((request + b"\r\n" + MESSAGE) * (count - 1) + last)
    answers = raw.read_all().split(b"HTTP/1.1 ")[1:]
    return [(int(a[:3]), b"\r\nRetry-After: " in a) for a in answers]


def as_streams(client, count):
    return [(a.status, a.header("retry-after") is not None) for a in client.post_at_once(count, MESSAGE)]


@pytest.mark.parametrize("connect,burst,count", [(RawTLS, pipelined, 32), (Http2, as_streams, 100)], ids=["http1", "http2"])
def test_a_slow_disk_refuses_early(faulty, connect, burst, count):
    """More than may wait for a commit: 503 at once, while those that wait are still to hear."""
    daemon, faults = faulty
    daemon.settings |= SOON | {"queue_waiting_max": str(WAITING_MAX)}
    site = Site(daemon.start())
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        # Open before they all send at once: what handshakes take on a busy machine is longer than a sync.
        connections = [stack.enter_context(connect(daemon.address(), site.identity)) for _ in range(4)]
        faults.slow_syncs(1000)
        bursts = list(pool.map(lambda connection: burst(connection, count), connections))
    answers = [a for b in bursts for a in b]
    accepted = sum(status == 202 for status, _ in answers)
    assert len(answers) == 4 * count and {status for status, _ in answers} == {202, 503}
    assert all(retry_after == (status == 503) for status, retry_after in answers)
    assert accepted >= WAITING_MAX // 2, "deliveries take some places too"
    if burst is as_streams:
        assert any(b[0][0] == 503 and 202 in dict(b) for b in bursts), "refusals do not wait for the disk"
    faults.clear()
    works_again(site)
    eventually(lambda: len(site.daemon.delivered()) == accepted + 1, "those with 202, and no others")


def test_memory_is_gone_for_a_while(faulty):
    daemon, faults = faulty
    daemon.settings |= SOON
    site = Site(daemon.start())
    faults.fail("alloc", errno.ENOMEM, skip=50, repeat=500)
    acknowledged, _ = post_many(site, POSTS)
    faults.clear()
    acknowledged.add(works_again(site))
    check_ledger(site, acknowledged)
