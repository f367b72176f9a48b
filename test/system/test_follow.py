"""sealpost messages follow: what arrives is shown once, in order, also across a restart of the daemon."""
import json
import subprocess
import threading

import pytest

from daemon import SANITIZER_REPORT, binary, environment
from waiting import eventually


class Follower:
    def __init__(self, daemon, *options):
        self.process = subprocess.Popen(
            [binary(), "messages", "follow", "--data", str(daemon.data), *options], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(None))
        self.lines, self.errors = [], []
        self.readers = [threading.Thread(target=lambda s=s, to=to: to.extend(iter(s.readline, "")))
                        for s, to in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for reader in self.readers:
            reader.start()

    def ids(self):
        return [json.loads(line)["message_id"] for line in list(self.lines)]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        assert not SANITIZER_REPORT.search("".join(self.errors)), self.errors


@pytest.fixture
def follow():
    followers = []

    def start(daemon, *options):
        followers.append(Follower(daemon, *options))
        return followers[-1]

    yield start
    for follower in followers:
        follower.stop()


def post(site, count, identity=None):
    with site.client(identity) as client:
        return [client.post().json["message_id"] for _ in range(count)]


def stored(site):
    """Ids in the order in which the main server got them: two threads deliver, so it is not always that of sending."""
    return [m["message_id"] for m in reversed(site.daemon.messages())]


def once(ids):
    """In the order of their first showing: a message is shown again when its status has changed."""
    return list(dict.fromkeys(ids))


def test_each_message_once_and_in_order(site, follow):
    before = post(site, 5)
    eventually(lambda: site.daemon.delivered() == set(before), "stored")
    newest = stored(site)
    everything, delivered, other = (follow(site.daemon, "--json", *options) for options in
                                    ((), ("--status", "delivered", "--limit", "2"), ("--client", "nobody")))
    eventually(lambda: everything.ids() == newest and delivered.ids() == newest[-2:], "begins with the newest")
    after = post(site, 20)
    eventually(lambda: site.daemon.delivered() == set(before + after), "stored")
    eventually(lambda: once(everything.ids()) == stored(site), "what arrives is shown")
    eventually(lambda: sorted(delivered.ids()) == sorted(newest[-2:] + after), "each once when it is delivered")
    site.daemon.restart()
    last = post(site, 2)
    eventually(lambda: site.daemon.delivered() == set(before + after + last), "stored")
    eventually(lambda: once(everything.ids()) == stored(site), "the daemon was away in between")
    assert other.lines == []


def test_more_than_a_page_at_once(site, follow):
    follower = follow(site.daemon, "--json", "--limit", "0")
    eventually(lambda: post(site, 1) and follower.ids(), "it follows")
    with site.client() as client:
        body = json.dumps([{"sender_number": "+4915112345678", "message_body": "m"}] * 700)
        answer = client.request("POST", "/api/v1/messages/batch", body, {"Content-Type": "application/json"})
    batch = [r["message_id"] for r in answer.json["results"]]
    # In the order in which they arrived: two threads deliver.
    eventually(lambda: set(batch) <= set(follower.ids()), "all of them")
    shown = [(m["message_id"], m["status"]) for m in map(json.loads, list(follower.lines))]
    assert len(set(shown)) == len(shown), "each once, and once more when its status has changed"


def test_lines_for_people(site, follow):
    follower = follow(site.daemon)
    message, = post(site, 1)
    eventually(lambda: any(message in line and "delivered" in line for line in follower.lines), "a line")


def test_without_a_daemon_nothing_arrives(make_daemon):
    daemon = make_daemon()
    result = daemon.cli("messages", "follow", check=False)
    assert result.returncode == 5 and "messages list" in result.stderr
