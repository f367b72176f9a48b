"""Certificates and configuration replaced while clients are connected: by SIGHUP, and when the files change."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from client import Client, Load
from daemon import Site, craft_cert
from waiting import eventually


def install(directory, *files):
    """Each by rename, as certificate managers and text editors do."""
    for file in files:
        fresh = directory / f".{file.name}"
        shutil.copy(file, fresh)
        os.replace(fresh, directory / file.name)


def write_config(site, text):
    """For the process that clients talk to."""
    source = site.daemon.proxy.directory / "sealpost.yaml"
    source.write_text(text)
    install(site.daemon.proxy.data, source)


def write_over(path, content):
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def certificate_shown(site):
    """What a new handshake sees."""
    with site.client() as client:
        assert client.post().status == 202
        return client.connection.sock.getpeercert(True)


def replace_certificate(site, *files):
    install(site.daemon.proxy.certificate_files[0].parent, *files)


def log(site):
    return site.daemon.proxy.log()


def last(site, event):
    """The last line of that event, and what came after it."""
    _, found, after = log(site).rpartition(event)
    line, _, rest = after.partition("\n")
    return found + line, rest


@pytest.fixture
def two_certificates(make_daemon, tmp_path):
    """A running daemon with a listener's certificate of its own, and the files of an older one that is still good."""
    daemon = make_daemon()
    files = daemon.proxy.certificate_files
    older = [Path(shutil.move(file, tmp_path)) for file in files]
    if daemon.proxy is not daemon:  # `up` makes itself another one
        daemon.issue(files[0].stem, "--role", "proxy", "--san", "127.0.0.1")
    return Site(daemon.start()), older


@pytest.mark.threads
def test_a_replaced_certificate_drops_nobody(two_certificates):
    site, older = two_certificates
    before = certificate_shown(site)
    load = Load(site.daemon.address(), site.identity, connections=4)
    replace_certificate(site, *older)
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
    replace_certificate(site, cert)
    eventually(lambda: "daemon.reload_failed" in log(site), "the half pair is refused")
    assert certificate_shown(site) == before
    replace_certificate(site, key)
    eventually(lambda: certificate_shown(site) != before, "the whole pair is taken")


def test_a_broken_certificate_changes_nothing(site):
    before = certificate_shown(site)
    path, _ = site.daemon.proxy.certificate_files
    good = path.read_bytes()
    with site.client() as connected:
        assert connected.post().status == 202
        write_over(path, b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        eventually(lambda: "daemon.reload_failed" in log(site), "the refusal is logged")
        assert path.name in last(site, "daemon.reload_failed")[0]
        write_config(site, "access_log: true\n")
        eventually(lambda: log(site).count("daemon.reload_failed") > 1, "the configuration alone is refused too")
        assert connected.post().status == 202
        assert certificate_shown(site) == before
        assert "http.request" not in log(site), "nothing of the new configuration is in force"
        write_over(path, good)
        eventually(lambda: "daemon.reloaded" in last(site, "daemon.reload_failed")[1], "a good file ends it")
        assert log(site).count("daemon.reload_failed") == 2, "one line for each change"
        assert connected.post().status == 202
    eventually(lambda: "http.request" in log(site), "the new configuration is in force")


def test_health_tells_of_a_certificate_that_has_just_expired(make_daemon, tmp_path):
    daemon = make_daemon()
    site = Site(daemon.start())
    cert, key = (tmp_path / file.name for file in daemon.proxy.certificate_files)
    subprocess.run([craft_cert(), "--ca-cert", next(daemon.server.data.rglob("issuing.pem")),
                    "--ca-key", next(daemon.server.data.rglob("issuing.key")), "--name", "proxy",
                    "--uri", "spiffe://sealpost.local/proxy/sealpost.local/proxy", "--usage", "both", "--to", "0",
                    "--out", cert, "--key-out", key], check=True)
    key.chmod(0o600)
    replace_certificate(site, cert, key)
    eventually(lambda: daemon.proxy.health()["checks"]["certificate"] ==
               {"status": "failed", "detail": "the listener's certificate has expired"}, "health tells of it")


def test_log_level_by_the_configuration_file(site):
    write_config(site, "log_level: warn\nio_threads: 3\n")
    eventually(lambda: "daemon.restart_needed" in log(site), "the file is read again")
    assert "options=io_threads" in last(site, "daemon.restart_needed")[0]
    write_config(site, "log_level: warn\nio_threads: 3\nlog_keep_days: 9\n")
    eventually(lambda: log(site).count("daemon.restart_needed") == 2, "it is still needed")
    write_config(site, "log_level: info\n")
    eventually(lambda: "daemon.reloaded" in last(site, "daemon.restart_needed")[1], "reloads are logged again")
    assert log(site).count("daemon.restart_needed") == 2, "what is in force needs none"


def test_a_broken_configuration_changes_nothing(site):
    write_config(site, "log_levle: debug\n")
    eventually(lambda: "daemon.reload_failed" in log(site), "the refusal is logged")
    refusal, _ = last(site, "daemon.reload_failed")
    assert "log_levle" in refusal and "log_level" in refusal
    with Client(site.daemon.address(), site.identity) as client:
        assert client.post().status == 202
