"""The certificates after the first: `sealpost renew`, what ends when, and a device that follows its CA."""
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from client import Client
from daemon import binary, run_cli
from est import certificates, csr, enroll, openssl, post, problem, register_crafted, token
from waiting import eventually


def certs_of(daemon, name):
    return {c["serial"]: c for c in daemon.json("client", "show", name)["certificates"]}


def serial(identity):
    return openssl("x509", "-in", identity.cert, "-noout", "-serial").decode().strip().split("=")[1].lower()


def renew(daemon, identity, *options, check=True, **kw):
    return run_cli("renew", "--url", daemon.ready["server"], "--cert", identity.cert, "--key", identity.key,
                   "--ca", identity.ca, *options, check=check, **kw)


def matches(identity):
    """Whether certificate and key belong together."""
    return openssl("x509", "-in", identity.cert, "-noout", "-pubkey") == \
        openssl("pkey", "-in", identity.key, "-pubout")


@pytest.fixture
def device(site, tmp_path):
    return enroll(token(site.daemon, "device-1"), tmp_path / "device")


def copy_of(identity, directory):
    directory.mkdir()
    for path in (identity.cert, identity.key, identity.ca):
        shutil.copy(path, directory / path.name)
    return type(identity)(identity.name, directory / identity.cert.name, directory / identity.key.name,
                          directory / identity.ca.name)


def accepted(site, identity):
    try:
        with site.client(identity) as c:
            return c.post().status == 202
    except OSError:
        return False


def test_not_before_two_thirds(site, device):
    before = device.cert.read_bytes()
    assert "is not due before" in renew(site.daemon, device).stdout
    assert device.cert.read_bytes() == before


def test_the_old_one_ends_when_the_new_one_is_used(site, device, tmp_path):
    old = copy_of(device, tmp_path / "old")
    assert accepted(site, old)
    renew(site.daemon, device, "--force")
    assert matches(device) and serial(device) != serial(old)
    assert device.key.read_bytes() != old.key.read_bytes()
    # Not used yet: the program that sends may go on with the old one.
    assert accepted(site, old)
    assert certs_of(site.daemon, "device-1")[serial(old)]["status"] == "valid"
    assert accepted(site, device)
    eventually(lambda: certs_of(site.daemon, "device-1")[serial(old)]["status"] == "revoked", "the old one ends")
    assert not accepted(site, old) and accepted(site, device)
    certs = certs_of(site.daemon, "device-1")
    assert certs[serial(old)]["revoke_reason"] == "superseded"
    assert certs[serial(device)]["renews"] == serial(old)
    assert "last_seen_at" in certs[serial(device)]
    # Once more, now that the files are links.
    renew(site.daemon, device, "--force")
    assert matches(device) and accepted(site, device)
    # The lineage ends as a whole.
    site.daemon.cli("cert", "revoke", "device-1")
    assert not accepted(site, device)


def test_an_overlap_can_be_had(make_daemon, tmp_path):
    daemon = make_daemon(settings={"renew_overlap": "1h"}).start()
    device = enroll(token(daemon, "slow"), tmp_path / "device")
    first = serial(device)
    renew(daemon, device, "--force")
    renew(daemon, device, "--force")   # shows the second one
    eventually(lambda: any("last_seen_at" in c and c.get("renews") == first
                           for c in certs_of(daemon, "slow").values()), "the second one was seen")
    time.sleep(1.2)                    # one more look
    assert certs_of(daemon, "slow")[first]["status"] == "valid"


def test_keys_are_kept_or_chosen(site, device):
    key = device.key.read_bytes()
    renew(site.daemon, device, "--force", "--reuse-key")
    assert device.key.read_bytes() == key and matches(device)
    renew(site.daemon, device, "--force", "--key-type", "ed25519")
    assert b"ED25519" in openssl("pkey", "-in", device.key, "-noout", "-text").upper() and matches(device)


def test_lifetime_and_modes_stay(site, tmp_path):
    device = enroll(token(site.daemon, "short", "--days", "7"), tmp_path / "device")
    os.chmod(device.key, 0o400)
    renew(site.daemon, device, "--force")
    assert os.stat(device.key).st_mode & 0o777 == 0o400
    assert openssl("x509", "-in", device.cert, "-noout", "-checkend", str(6 * 86400)) is not None
    with pytest.raises(subprocess.CalledProcessError):
        openssl("x509", "-in", device.cert, "-noout", "-checkend", str(8 * 86400))


def test_a_run_that_is_killed_leaves_a_pair(site, tmp_path):
    """Killed at every system call that changes a file: certificate and key belong together all the same."""
    device = enroll(token(site.daemon, "killed"), tmp_path / "device")
    calls = "rename,renameat,renameat2,symlink,symlinkat,mkdir,mkdirat,unlink,unlinkat"
    command = ["strace", "-o", "/dev/null", "-e", f"trace={calls}"]
    renew_command = [binary(), "renew", "--url", site.daemon.ready["server"], "--cert", str(device.cert), "--key",
                     str(device.key), "--ca", str(device.ca), "--force"]
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    for n in range(1, 40):
        result = subprocess.run([*command, "-e", f"inject={calls}:signal=SIGKILL:when={n}", *renew_command],
                                capture_output=True, text=True, env=env)
        assert matches(device), n
        if result.returncode == 0:
            break
    else:
        pytest.fail("it never got to its end")
    assert n > 3 and accepted(site, device)
    renew(site.daemon, device, "--force")
    assert len([p for p in device.key.parent.iterdir() if p.is_dir() and not p.is_symlink()]) == 1


def test_refusals(site, device, tmp_path):
    other = copy_of(device, tmp_path / "other")
    site.daemon.cli("client", "suspend", "device-1")
    assert renew(site.daemon, device, "--force", check=False).returncode == 4
    site.daemon.cli("client", "resume", "device-1")
    # The request may not name somebody else.
    request = csr(tmp_path, "/CN=somebody-else")
    status, _, body = post(site.daemon.ready["server"], "simplereenroll", request, device.ca, "--cert", device.cert,
                           "--key", device.key)
    assert status == 403 and "another subject" in problem(body)["detail"]
    # The same one, or none, is well.
    for subject in ("/CN=device-1", "/"):
        status, _, body = post(site.daemon.ready["server"], "simplereenroll", csr(tmp_path, subject), device.ca,
                               "--cert", device.cert, "--key", device.key)
        assert status == 200 and "BEGIN CERTIFICATE" in certificates(body)
    # Without a certificate there is nothing to renew.
    assert post(site.daemon.ready["server"], "simplereenroll", request, device.ca)[0] == 401
    site.daemon.cli("cert", "revoke", "device-1")
    refused = renew(site.daemon, other, "--force", check=False)
    assert refused.returncode == 4 and "revoked" in refused.stderr
    # A server that our CA does not vouch for.
    shutil.copy(other.cert, other.ca)
    assert renew(site.daemon, other, "--force", check=False).returncode == 4


def test_files_that_do_not_fit_are_named(site, device, tmp_path):
    other = site.new_identity()
    cases = [({"key": other.key}, f"'{other.key}' is not the private key of '{device.cert}'"),
             ({"key": tmp_path / "none.key"}, "none.key"),
             ({"key": device.ca}, f"'{device.ca}': private key"),
             ({"ca": device.key}, f"'{device.key}': no certificate")]
    for changed, says in cases:
        files = {"cert": device.cert, "key": device.key, "ca": device.ca} | changed
        result = run_cli("renew", "--url", site.daemon.ready["server"], "--force",
                         *(word for name, file in files.items() for word in (f"--{name}", file)), check=False)
        assert result.returncode in (1, 3) and says in result.stderr, result.stderr


@pytest.mark.parametrize("options", [("--reuse-key", "--key-type", "rsa:2048"), ("--textfile", "renew.prom")])
def test_contradictions_are_usage_errors(site, device, options):
    assert renew(site.daemon, device, *options, check=False).returncode == 2


# --- devices that were off ---

@pytest.mark.parametrize("grace, ended, works", [("0s", 2, False), ("30d", 2, True), ("1d", 2, False)])
def test_a_device_that_was_off(make_daemon, tmp_path, grace, ended, works):
    daemon = make_daemon(settings={"renew_grace": grace})
    daemon.issue("dozer", "--domain", "example.com")   # adds the client; long ago, as it were
    with sqlite3.connect(next(daemon.data.rglob("store.db"))) as db:
        db.execute("UPDATE certs SET issued_ms = 1 WHERE name = 'dozer'")
    device = register_crafted(daemon, "dozer", tmp_path / "device", -40, -ended)
    daemon.start()
    late = renew(daemon, device, check=False)
    if not works:
        assert late.returncode in (4, 5), late.stderr
        assert "expired" in late.stderr
        return
    assert late.returncode == 0, late.stderr
    assert matches(device)
    openssl("x509", "-in", device.cert, "-noout", "-checkend", "86400")


def test_the_grace_is_for_renewing_and_for_the_newest_only(make_daemon, tmp_path):
    daemon = make_daemon(settings={"renew_grace": "30d"})
    device = register_crafted(daemon, "dozer", tmp_path / "device", -40, -2)
    daemon.start()
    host, port = daemon.address("server")
    for path in ("/admin/clients", "/ca/ca.pem", "/.well-known/est/cacerts"):
        answer = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", device.ca, "--cert",
                                 device.cert, "--key", device.key, f"https://{host}:{port}{path}"],
                                capture_output=True, text=True)
        assert answer.stdout in ("401", "403"), path
    with pytest.raises(OSError):   # where messages go it is not let in at all
        with Client(daemon.address(), device) as c:
            c.post()
    daemon.issue("dozer", "--domain", "example.com")
    refused = renew(daemon, device, check=False)
    assert refused.returncode == 4 and "not the newest" in refused.stderr
    daemon.cli("cert", "revoke", "dozer")
    refused = renew(daemon, device, check=False)
    assert refused.returncode == 4 and "revoked" in refused.stderr


def test_the_service(site, device, tmp_path):
    """It renews when told to start with that, then waits, says when for, and ends when told to."""
    textfile = tmp_path / "renew.prom"
    hook = tmp_path / "told"
    first = serial(device)
    process = subprocess.Popen(
        [binary(), "renew", "--url", site.daemon.ready["server"], "--cert", str(device.cert), "--key", str(device.key),
         "--ca", str(device.ca), "--watch", "--force", "--textfile", str(textfile), "--run", f"touch {hook}"],
        stderr=subprocess.PIPE, text=True)
    eventually(lambda: textfile.exists() and 'failures{name="device-1"} 0' in textfile.read_text()
               and 'success_timestamp_seconds{name="device-1"} 0' not in textfile.read_text(), "renewed")
    assert serial(device) != first and hook.exists() and matches(device)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "renew.done" in log and log.count("renew.next") == 2


def test_the_service_as_the_manual_starts_it(site, device):
    """Nothing is due and nobody wants metrics: it waits, without harm to the files."""
    before = serial(device)
    process = subprocess.Popen(
        [binary(), "renew", "--url", site.daemon.ready["server"], "--cert", str(device.cert), "--key", str(device.key),
         "--ca", str(device.ca), "--watch"], stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    assert "renew.next" in line and "name=device-1" in line
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0 and "renew.ended" in log
    assert serial(device) == before and matches(device)


def test_again_and_again(site, device):
    seen = {serial(device)}
    for _ in range(3):
        renew(site.daemon, device, "--force")
        seen.add(serial(device))
        assert matches(device)
    assert len(seen) == 4


def test_the_service_is_loud_while_it_fails(site, device, tmp_path):
    url = site.daemon.ready["server"]
    site.daemon.stop()
    textfile = tmp_path / "renew.prom"
    process = subprocess.Popen(
        [binary(), "renew", "--url", url, "--cert", str(device.cert), "--key", str(device.key), "--ca",
         str(device.ca), "--watch", "--force", "--textfile", str(textfile), "--timeout", "2"],
        stderr=subprocess.PIPE, text=True)
    eventually(lambda: textfile.exists() and 'failures{name="device-1"} 1' in textfile.read_text(), "failed")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0 and "renew.failed" in log and url in log


def test_expiry_is_counted(site):
    site.new_identity("--days", "1")
    site.new_identity("--days", "20")
    site.daemon.restart()

    def counted():
        text = subprocess.run(["curl", "-sS", site.daemon.server.ready["metrics"] + "/metrics"], capture_output=True,
                              text=True).stdout
        return all(f'sealpost_certificates_expiring{{within="{w}"}} {n}' in text
                   for w, n in (("1d", 1), ("7d", 1), ("30d", 2)))
    eventually(counted, "the metric counts them")
    eventually(lambda: "certificates.expiring" in site.daemon.log(), "the log says so")
