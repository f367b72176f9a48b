"""faults.so itself, under a small program instead of a daemon."""
import errno
import subprocess
import sys
import time

import pytest

from faults import FOR_GOOD, Faults

OLD, NEW = b"a" * 2000, b"b" * 5000


@pytest.fixture
def run(tmp_path):
    """run(faults, lines of Python): the exit code of the program, which has the open file `f`."""
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def call(faults, *lines):
        program = "\n".join(["import os, sys", "f = os.open(sys.argv[1], os.O_RDWR)",
                             "def attempt(g, *a):", "    try: g(*a)", "    except OSError as e: return e.errno",
                             *lines])
        return subprocess.run([sys.executable, "-c", program, str(path)], env=faults.env, check=False).returncode
    return path, call


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path, tmp_path / "control")


def test_without_a_fault_nothing_changes(run, faults):
    path, call = run
    assert call(faults, "os.write(f, b'b' * 5000); os.fsync(f)") == 0
    assert path.read_bytes() == NEW
    assert faults.seen("write") >= 1 and faults.seen("sync") == 1 and faults.failed == 0


@pytest.mark.parametrize("change", ["os.write(f, b'b' * 5000)", "os.pwrite(f, b'b' * 100, 700)", "os.ftruncate(f, 10)",
                                    "os.ftruncate(f, 9000)", "os.lseek(f, 0, 2); os.write(f, b'more')"])
def test_a_cut_takes_back_what_was_not_synced(run, faults, change):
    path, call = run
    faults.cut_power("sync")
    assert call(faults, change, "os.fsync(f)") == -9
    assert path.read_bytes() == OLD


def test_a_cut_keeps_what_was_synced(run, faults):
    path, call = run
    faults.cut_power("sync", skip=1)
    assert call(faults, "os.write(f, b'b' * 5000); os.fsync(f)", "os.pwrite(f, b'c' * 50, 0); os.fsync(f)") == -9
    assert path.read_bytes() == NEW


def test_a_torn_cut_keeps_some_sectors(run, faults):
    path, call = run
    path.write_bytes(b"a" * 51200)
    faults.cut_power("sync", seed=5)
    assert call(faults, "os.pwrite(f, b'b' * 51200, 0); os.fsync(f)") == -9
    sectors = {path.read_bytes()[i:i + 512] for i in range(0, 51200, 512)}
    assert sectors == {b"a" * 512, b"b" * 512}


def test_a_lying_sync_keeps_nothing(run, faults):
    path, call = run
    faults.lie_about_syncs()
    faults.cut_power("sync", skip=1)
    assert call(faults, "os.write(f, b'b' * 5000); os.fsync(f); os.fsync(f)") == -9
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("call_name,action", [("write", "os.write, f, b'x'"), ("sync", "os.fdatasync, f"),
                                              ("truncate", "os.ftruncate, f, 1"), ("read", "os.pread, f, 1, 0")])
def test_the_right_call_fails(run, faults, call_name, action):
    _, call = run
    faults.fail(call_name, errno.EIO, skip=1)
    assert call(faults, f"sys.exit([attempt({action}) for _ in range(3)] != [None, {errno.EIO}, None])") == 0
    assert faults.failed == 1


def test_slow_syncs(run, faults):
    path, call = run
    faults.slow_syncs(200)
    began = time.monotonic()
    assert call(faults, "os.write(f, b'b' * 5000); os.fsync(f)") == 0
    assert time.monotonic() - began >= 0.2 and path.read_bytes() == NEW


def test_for_good(run, faults):
    _, call = run
    faults.fail("write", errno.ENOSPC, repeat=FOR_GOOD)
    assert call(faults, f"sys.exit([attempt(os.write, f, b'x') for _ in range(3)] != [{errno.ENOSPC}] * 3)") == 0


@pytest.mark.parametrize("step_s", [-86400, 0, 86400])
def test_a_wrong_clock(run, faults, step_s):
    _, call = run
    faults.set_clock(step_s)
    assert call(faults, "import time", f"off = [abs(now() - {time.time()} - {step_s}) for now in (time.time, lambda:"
                " time.clock_gettime(time.CLOCK_REALTIME))]",
                f"sys.exit(max(off) > 60 or abs(time.monotonic() - {time.monotonic()}) > 60)") == 0
