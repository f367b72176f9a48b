"""Certificates and configuration replaced while clients are connected: by SIGHUP, and when the files change."""
import os
import shutil

import pytest

from client import Client, Load
from daemon import Site
from waiting import eventually


def install(directory, *files):
    """Each by rename, as certificate managers and text editors do."""
    for file in files:
        fresh = directory / f".{file.name}"
        shutil.copy(file, fresh)
        os.replace(fresh, directory / file.name)


def write_config(daemon, text):
    source = daemon.directory / "sealpost.yaml"
    source.write_text(text)
    install(daemon.data, source)


def certificate_shown(site):
    """What a new handshake sees."""
    with site.client() as client:
        assert client.post().status == 202
        return client.connection.sock.getpeercert(True)


@pytest.fixture
def two_certificates(make_daemon, tmp_path):
    """A running daemon with a listener's certificate of its own, and the files of an older one that is still good."""
    daemon = make_daemon()
    older = [shutil.move(daemon.data / "tls" / f"proxy.{suffix}", tmp_path) for suffix in ("pem", "key")]
    return Site(daemon.start()), [type(tmp_path)(f) for f in older]


@pytest.mark.threads
def test_a_replaced_certificate_drops_nobody(two_certificates):
    site, older = two_certificates
    before = certificate_shown(site)
    load = Load(site.daemon.address(), site.identity, connections=4)
    install(site.daemon.data / "tls", *older)
    eventually(lambda: certificate_shown(site) != before, "new handshakes see the other certificate")
    goal = len(load.acknowledged) + 50
    eventually(lambda: len(load.acknowledged) >= goal, "the load goes on")
    assert all(t.is_alive() for t in load.threads), "a connection was dropped"
    acknowledged = load.stop()
    assert load.refused == []
    eventually(lambda: set(acknowledged) <= site.daemon.delivered(), "all are delivered")


def test_a_certificate_without_its_key_waits_for_it(two_certificates):
    """The pair is only half there for a while: no handshake fails meanwhile, and the whole pair is taken."""
    site, (cert, key) = two_certificates
    before = certificate_shown(site)
    install(site.daemon.data / "tls", cert)
    eventually(lambda: "daemon.reload_failed" in site.daemon.log(), "the half pair is refused")
    assert certificate_shown(site) == before
    install(site.daemon.data / "tls", key)
    eventually(lambda: certificate_shown(site) != before, "the whole pair is taken")


def test_a_broken_certificate_changes_nothing(site):
    before = certificate_shown(site)
    path = site.daemon.data / "tls" / "proxy.pem"
    good = path.read_bytes()
    with site.client() as connected:
        assert connected.post().status == 202
        path.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        write_config(site.daemon, "access_log: true\n")
        eventually(lambda: "daemon.reload_failed" in site.daemon.log(), "the refusal is logged")
        assert "proxy.pem" in site.daemon.log_tail(1)
        assert connected.post().status == 202
        assert certificate_shown(site) == before
        assert "http.request" not in site.daemon.log(), "nothing of the new configuration is in force"
        path.write_bytes(good)
        eventually(lambda: "daemon.reloaded" in site.daemon.log(), "a good file ends it")
        assert site.daemon.log().count("daemon.reload_failed") == 1, "one line for each change"
        assert connected.post().status == 202
    eventually(lambda: "http.request" in site.daemon.log(), "the new configuration is in force")


def test_log_level_by_the_configuration_file(site):
    write_config(site.daemon, "log_level: warn\nio_threads: 3\n")
    eventually(lambda: "daemon.restart_needed" in site.daemon.log(), "the file is read again")
    assert "options=io_threads" in site.daemon.log_tail(1)
    write_config(site.daemon, "log_level: info\n")
    eventually(lambda: "daemon.reloaded" in site.daemon.log(), "reloads are logged again")


def test_a_broken_configuration_changes_nothing(site):
    write_config(site.daemon, "log_levle: debug\n")
    eventually(lambda: "daemon.reload_failed" in site.daemon.log(), "the refusal is logged")
    assert "log_levle" in site.daemon.log_tail(1) and "log_level" in site.daemon.log_tail(1)
    with Client(site.daemon.address(), site.identity) as client:
        assert client.post().status == 202
