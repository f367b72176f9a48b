"""What systemd sees: sockets that it passes, and what the daemon tells it."""
import signal
import socket
import sys
import time

import pytest

from daemon import Site
from waiting import eventually

# Listens, and becomes the daemon with that socket as descriptor 3, as systemd does.
PASS_SOCKET = """
import os, socket, sys
name, listens, port, *command = sys.argv[1:]
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(port)))
if listens == "yes":
    listener.listen()
print("socket", listener.getsockname()[1], flush=True)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
os.execv(command[0], command)
"""


def activate(role, name, listens="yes", port="0"):
    role.wrapper = [sys.executable, "-c", PASS_SOCKET, name, listens, port]


@pytest.mark.parametrize("listener", ["ingest", "server", "metrics"])
def test_a_passed_socket_is_taken_over(make_daemon, listener):
    daemon = make_daemon()
    role = daemon.server if listener == "server" else daemon.proxy
    activate(role, listener, port=role.settings[f"{listener}_listen"].rpartition(":")[2])
    site = Site(daemon.start())
    port = next(int(line.split()[1]) for line in site.daemon.log().splitlines() if line.startswith("socket "))
    assert site.daemon.address(listener)[1] == port
    with site.client() as client:
        assert client.post().status == 202


@pytest.mark.parametrize("name, listens, why", [
    ("sealpost.socket", "yes", "FileDescriptorName="), ("", "yes", "FileDescriptorName="),
    ("ingest", "no", "does not listen")])
def test_a_socket_that_is_none_of_ours_is_refused(make_daemon, name, listens, why):
    for role in make_daemon().roles:
        activate(role, name, listens)
        role.spawn()
        assert role.wait() == 1
        assert "socket activation" in role.log() and why in role.log()


def test_sockets_for_another_process_are_left_alone(make_daemon):
    site = Site(make_daemon(env={"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ingest"}).start())
    with site.client() as client:
        assert client.post().status == 202


@pytest.fixture
def manager(tmp_path):
    """Where systemd would listen for notifications."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(60)
        yield s


def states(manager, last):
    """What is said, up to and with `last`."""
    said = []
    while not said or said[-1] != last:
        said.append(manager.recv(4096).decode())
    return said


def test_the_manager_is_told(make_daemon, manager):
    daemon = make_daemon()
    daemon.server.env["NOTIFY_SOCKET"] = manager.getsockname()
    daemon.start()
    assert states(manager, "READY=1") == ["READY=1"]
    assert set(states(manager, "WATCHDOG=1")) == {"WATCHDOG=1"}
    daemon.signal(signal.SIGHUP)
    assert "READY=1" in states(manager, "RELOADING=1") + states(manager, "READY=1")
    daemon.signal(signal.SIGTERM)
    states(manager, "STOPPING=1")
    assert daemon.wait() == 0


def test_a_reload_is_no_start(make_daemon, manager):
    """The manager waits for a daemon that cannot accept yet, whatever it reloads meanwhile."""
    daemon = make_daemon(settings={"disk_free_min": "1TiB"})
    daemon.proxy.env["NOTIFY_SOCKET"] = manager.getsockname()
    for role in daemon.roles:
        role.spawn()
    states(manager, "WATCHDOG=1")
    daemon.proxy.signal(signal.SIGHUP)
    eventually(lambda: "daemon.reloaded" in daemon.proxy.log(), "the reload")
    assert set(states(manager, "WATCHDOG=1") + states(manager, "WATCHDOG=1")) == {"WATCHDOG=1"}


@pytest.mark.threads
def test_drain_is_bounded_and_leaves_no_request_half_answered(make_daemon):
    """A peer that never finishes its request does not hold up the end; those that were sent are answered."""
    site = Site(make_daemon(settings={"drain_timeout": "2s"}).start())
    waiting = [site.client() for _ in range(8)]
    body = b'{"sender_number":"+4915112345678","message_body":"sent before the end"}'
    for client in waiting:
        client.get("/livez")
    stuck = site.client()
    stuck.connection.putrequest("POST", "/api/v1/messages")
    stuck.connection.putheader("Content-Length", "100")
    stuck.connection.endheaders(b"{")
    for client in waiting:
        client.connection.request("POST", "/api/v1/messages", body, {"Content-Type": "application/json"})
    began = time.monotonic()
    site.daemon.signal(signal.SIGTERM)
    answers = []
    for client in waiting:
        try:
            answers.append(client.connection.getresponse().status)
        except ConnectionError:
            answers.append("closed")
    assert site.daemon.wait() == 0
    assert set(answers) <= {202, "closed"}
    assert time.monotonic() - began < 30
    site.daemon.start()
    eventually(lambda: len(site.daemon.delivered()) >= answers.count(202), "what was acknowledged is there")
    for client in [*waiting, stuck]:
        client.close()
