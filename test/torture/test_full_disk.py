"""A file system that is really full, under load: no false 202, a reason to read, and work that resumes by itself.

test_disk.py has the errors one by one; here the kernel makes them, wherever it likes. The data directory is a small
file system in a mount namespace of this process and its children. Needs root.
"""
import errno
import os
import shutil

import pytest

import disks
from client import Load
from daemon import Site
from test_disk import SOON, check_ledger
from waiting import eventually

SIZE_BYTES = 48 << 20
# Much less than the default, so that the disk may be full before the watermark has stopped anything.
WATERMARK = "1MiB"


@pytest.fixture(scope="module")
def own_mounts():
    try:
        disks.own_mounts()
    except disks.Unable as e:
        pytest.skip(str(e))


@pytest.fixture(params=[disks.Tmpfs, disks.Ext4], ids=["tmpfs", "ext4"])
def small_disk(request, own_mounts, make_daemon, tmp_path):
    """A running daemon whose data directory is a small file system."""
    daemon = make_daemon()
    template = daemon.directory / "template"
    daemon.data.rename(template)
    daemon.data.mkdir()
    try:
        disk = request.param(tmp_path / "image", daemon.data, SIZE_BYTES)
    except disks.Unable as e:
        pytest.skip(str(e))
    shutil.copytree(template, daemon.data, dirs_exist_ok=True)
    daemon.settings |= SOON | {"disk_free_min": WATERMARK}
    yield Site(daemon.start())
    daemon.close()
    disk.unmount()


def fill(path):
    """Until not one byte more is taken."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for size in (1 << 16, 1):
        try:
            while True:
                os.write(fd, bytes(size))
        except OSError as e:
            assert e.errno == errno.ENOSPC
    os.close(fd)


def troubles(client):
    """What keeps it from accepting, by check; none when it is ready."""
    answer = client.get("/api/v1/health")
    checks = answer.json["checks"]
    found = {name: checks[name]["detail"] for name in ("queue", "disk") if checks[name]["status"] == "failed"}
    assert bool(found) == (answer.status == 503)
    return found


def test_full_under_load(small_disk):
    site, daemon = small_disk, small_disk.daemon
    pid, ballast = daemon.pid, daemon.data / "ballast"
    load = Load(daemon.address(), site.identity, connections=8)
    with site.client() as client:
        for _ in range(3):
            before = len(load.acknowledged)
            eventually(lambda: len(load.acknowledged) > before + 50, "messages are accepted")
            fill(ballast)
            eventually(lambda: client.post("is it full?").status == 503, "the disk is full")
            assert all(eventually(lambda: troubles(client), "health tells").values())
            assert client.get("/readyz").status == 503 and client.get("/livez").status == 200
            ballast.unlink()
            eventually(lambda: client.post("is there room?").status == 202, "messages are accepted again")
            eventually(lambda: not troubles(client), "health is good again")
    acknowledged = set(load.stop())
    assert daemon.pid == pid and load.refused and set(load.refused) == {503}
    check_ledger(site, acknowledged)
