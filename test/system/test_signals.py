"""SIGTERM and SIGINT drain, SIGHUP reloads, and the ready file says when it is all there."""
import os
import signal
import stat

import pytest

from client import Client, Load
from daemon import Site
from waiting import eventually


@pytest.mark.threads
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_drain_under_load(site, number):
    """Exit 0, every request that was read is answered, and nothing acknowledged is missing afterwards."""
    daemon = site.daemon
    load = Load(daemon.address(), site.identity, connections=8)
    eventually(lambda: len(load.acknowledged) >= 200, "load is under way")
    daemon.signal(number)
    assert daemon.wait() == 0
    acknowledged = set(load.stop())
    assert load.refused.count(500) == 0
    daemon.start()
    eventually(lambda: acknowledged <= daemon.delivered(), "every acknowledged message is delivered")


def test_idle_connections_do_not_hold_up_the_drain(site):
    clients = [site.client() for _ in range(20)]
    for c in clients:
        assert c.get("/livez").status == 200
    site.daemon.stop()
    for c in clients:
        c.close()


def test_a_draining_daemon_takes_no_connections(site):
    address = site.daemon.address()
    site.daemon.stop()
    with pytest.raises(OSError):
        Client(address, site.identity).get("/livez")


def test_ready_file(site):
    ready = site.daemon.ready
    assert ready["pid"] > 1 and os.path.exists(f"/proc/{ready['pid']}")
    assert ready["ingest"].startswith("https://127.0.0.1:") and ready["metrics"].startswith("http://127.0.0.1:")
    assert os.path.isfile(ready["ca"])
    mode = os.stat(ready["admin_socket"]).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


def test_hangup_reopens_the_log(make_daemon, tmp_path):
    daemon = make_daemon(settings={"log_file": str(tmp_path / "sealpost.log")}).start()

    def logs():
        return {p for p in tmp_path.glob("sealpost*log*") if p.is_file()}
    eventually(logs, "the log file exists")
    original = logs().pop()
    rotated = original.with_name("rotated")
    original.rename(rotated)
    daemon.signal(signal.SIGHUP)
    eventually(original.exists, "the log is opened anew under its name")
    daemon.stop()
    assert original.read_text(), "what happened after the hang-up is in the new file"


@pytest.mark.threads
def test_hangups_under_load_lose_nothing(site):
    load = Load(site.daemon.address(), site.identity, connections=4)
    for round_number in range(10):
        goal = len(load.acknowledged) + 20
        site.daemon.signal(signal.SIGHUP)
        eventually(lambda: len(load.acknowledged) >= goal, f"load goes on after hang-up {round_number}")
    acknowledged = load.stop()
    assert load.refused == []
    eventually(lambda: set(acknowledged) == site.daemon.delivered(), "all are delivered")


def test_address_in_use(site, make_daemon):
    host, port = site.daemon.address()
    other = make_daemon(settings={"ingest_listen": f"{host}:{port}"})
    other.spawn()
    assert other.proxy.wait() == 1
    assert f"{host}:{port}" in other.log() and not other.proxy.ready_file.exists()


def test_more_connections_than_allowed(make_daemon):
    """Those past the limit are refused; those that are there go on."""
    site = Site(make_daemon(settings={"connections_per_address": 8}).start())
    held = [site.client() for _ in range(8)]
    for c in held:
        assert c.get("/livez").status == 200
    with pytest.raises(OSError):
        site.client().get("/livez")
    assert all(c.post().status == 202 for c in held)
    held.pop().close()

    def gets_in():
        try:
            with site.client() as c:
                return c.get("/livez").status == 200
        except OSError:
            return False
    eventually(gets_in, "the place that became free is given away")
    for c in held:
        c.close()
