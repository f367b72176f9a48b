"""Many devices: enrol, renew, follow the CA to a new issuing certificate; and one on a machine of its own.

FLEET=500 pytest system/test_fleet.py is the full size; it prints how long each step took.
"""
import concurrent.futures
import os
import subprocess
import time

import pytest

from daemon import binary, run_cli
from est import enroll, identity, openssl, token
from waiting import eventually

FLEET = int(os.environ.get("FLEET", "12"))


def each(work, devices):
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, devices))
    print(f"{work.__name__}: {len(results)} devices in {time.monotonic() - start:.1f} s")
    return results


def issuer_of(device):
    return openssl("x509", "-in", device.cert, "-noout", "-issuer")


@pytest.mark.timeout(1800)
def test_nobody_is_locked_out(site, tmp_path):
    daemon = site.daemon

    def enrol(i):
        return enroll(token(daemon, f"fleet-{i:04}"), tmp_path / str(i))

    def send(device):
        with site.client(device) as c:
            return c.post().status

    def renew(device):
        run_cli("renew", "--url", daemon.ready["server"], "--cert", device.cert, "--key", device.key, "--ca", device.ca,
                "--force")

    devices = each(enrol, range(FLEET))
    assert set(each(send, devices)) == {202}
    each(renew, devices)
    assert set(each(send, devices)) == {202}
    before = {issuer_of(device) for device in devices}
    daemon.cli("ca", "rotate-issuing")
    # The old issuing CA goes on being trusted, so nobody is in a hurry.
    assert set(each(send, devices)) == {202}
    each(renew, devices)
    after = {issuer_of(device) for device in devices}
    assert len(before) == len(after) == 1 and before != after
    assert set(each(send, devices)) == {202}
    each(renew, devices)   # with the certificate of the new one
    assert set(each(send, devices)) == {202}
    eventually(lambda: sum(c["status"] == "valid" for c in daemon.json("client", "show", "fleet-0000")["certificates"])
               == 1, "what was renewed has ended")


# --- a second machine ---

@pytest.fixture
def machine():
    """A network namespace with a cable to this one; the address of our end of it."""
    name, ours, theirs = f"sp{os.getpid()}", f"spa{os.getpid() % 10000}", f"spb{os.getpid() % 10000}"
    address = f"10.213.{os.getpid() % 250}"

    def ip(*args):
        return subprocess.run(["ip", *args], capture_output=True, text=True)

    made = ip("netns", "add", name)
    if made.returncode != 0:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        for step in (("link", "add", ours, "type", "veth", "peer", "name", theirs),
                     ("link", "set", theirs, "netns", name),
                     ("addr", "add", f"{address}.1/24", "dev", ours), ("link", "set", ours, "up"),
                     ("-n", name, "addr", "add", f"{address}.2/24", "dev", theirs),
                     ("-n", name, "link", "set", theirs, "up")):
            result = ip(*step)
            if result.returncode != 0:
                pytest.skip(f"no network between namespaces here: ip {' '.join(step)}: {result.stderr.strip()}")
        yield name, f"{address}.1"
    finally:
        ip("link", "del", ours)
        ip("netns", "del", name)


@pytest.mark.up_only("a new user's first machine has every role on it")
def test_a_second_machine(machine, make_daemon, tmp_path):
    """As a new user would: one command here, one there, and it sends."""
    name, address = machine
    daemon = make_daemon(settings={"ingest_listen": f"{address}:0", "server_listen": f"{address}:0",
                                   "tls_names": address})
    daemon.start()

    def there(*args, check=True):
        return subprocess.run(["ip", "netns", "exec", name, *map(str, args)], capture_output=True, text=True, check=check)

    made = token(daemon, "remote")
    assert address in made["url"] and address in made["send"]
    output = there(binary(), "enroll", made["token"], "--out", tmp_path).stdout
    send = next(line for line in output.splitlines() if "sealpost send" in line).split()[1:-2]
    message_id = there(binary(), *send, "+4915112345678", "hello").stdout.split()[0]
    eventually(lambda: message_id in daemon.delivered(), "delivered")
    assert identity("remote", tmp_path).cert.exists()
    refused = there(binary(), "enroll", made["token"], "--out", tmp_path / "again", check=False)
    assert refused.returncode == 4 and "used already" in refused.stderr
