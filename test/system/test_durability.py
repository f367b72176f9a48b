"""202 means on disk: seen in the order of the system calls."""
import itertools
import re
import shutil

import pytest

from daemon import Site

POSTS = 20
SYNC = re.compile(r"(fdatasync|fsync)\(\d+<(?P<path>[^>]*)>\)\s*= 0")
SYNC_RESUMED = re.compile(r"<\.\.\. (fdatasync|fsync) resumed>\)\s*= 0")
SYNC_STARTED = re.compile(r"(fdatasync|fsync)\(\d+<(?P<path>[^>]*)> <unfinished")
SENT = re.compile(r"(write|writev|sendto|sendmsg)\(\d+<(TCP|socket)[^>]*>")


@pytest.mark.plain
@pytest.mark.up_only("on Redis it is redis-server that syncs; test_redis.py has how that is seen to")
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_log_is_synced_before_each_answer(make_daemon, tmp_path):
    """One request at a time on one connection: between two answers there has to be a finished sync of the queue.

    Delivery is paused, so that the only syncs are those of accepting. The trace is read when strace has ended: an answer
    may be here before its line is there.
    """
    trace = tmp_path / "strace.log"
    daemon = make_daemon(wrapper=["strace", "-f", "-qq", "-yy", "-s", "0", "-o", str(trace), "-e",
                                  "trace=fdatasync,fsync,write,writev,sendto,sendmsg"],
                         env={"ASAN_OPTIONS": "detect_leaks=0"})  # LeakSanitizer cannot run under ptrace
    daemon.start()
    site = Site(daemon)
    daemon.cli("queue", "pause", "delivery")
    with site.client() as client:
        client.connection.connect()
        port = client.connection.sock.getsockname()[1]
        for i in range(POSTS):
            assert client.post(f"message {i}").status == 202
    daemon.stop()
    events = [event for event, _ in itertools.groupby(events_of(trace.read_text().splitlines(), port))]
    # The first to this client are the handshake's; what comes after the last answer is the end of the connection.
    handshake = events.index("answer")
    assert events[handshake:handshake + 1 + 2 * POSTS] == ["answer"] + ["sync", "answer"] * POSTS


def events_of(lines, client_port):
    """'sync' where a sync of a file of the queue was finished, 'answer' where bytes went to the client."""
    events, syncing = [], {}
    for line in lines:
        thread = line.split()[0]
        if m := SYNC_STARTED.search(line):
            syncing[thread] = m["path"]
        elif SYNC_RESUMED.search(line) and "queue" in syncing.pop(thread, ""):
            events.append("sync")
        elif (m := SYNC.search(line)) and "queue" in m["path"]:
            events.append("sync")
        elif SENT.search(line) and f":{client_port}]" in line and "resumed" not in line:
            events.append("answer")
    return events
