"""The test's side of faults.c: the page it shares with the daemon, and a daemon that is loaded with it."""
import errno
import mmap
import os
import struct
import time
from pathlib import Path

CALLS = ("none", "write", "sync", "truncate", "alloc", "read")
# As struct control: seven words and a spare one, then `failed`, `seen` and the step of the clock, eight bytes each.
WORDS = {name: 4 * i for i, name in enumerate(("call", "error", "skip", "repeat", "ignore_sync", "seed", "slow_ms"))}
FAILED_AT, SEEN_AT, PAGE_BYTES = 32, 40, 4096
CLOCK_AT = SEEN_AT + 8 * len(CALLS)
FOR_GOOD = 0xFFFFFFFF
FULL = os.environ.get("SEALPOST_TORTURE") == "full"


def library():
    path = os.environ.get("SEALPOST_FAULTS")
    assert path and Path(path).is_file(), "SEALPOST_FAULTS names faults.so"
    return path


class Faults:
    """Faults for one daemon. Give `env` to it; arm and disarm while it runs."""

    def __init__(self, directory, control_file):
        control_file.write_bytes(bytes(PAGE_BYTES))
        self.file = control_file.open("r+b")
        self.page = mmap.mmap(self.file.fileno(), PAGE_BYTES)
        self.env = {"LD_PRELOAD": library(), "FAULTS_CONTROL": str(control_file), "FAULTS_DIR": str(directory)}

    def _put(self, **words):
        for name, value in words.items():
            struct.pack_into("<I", self.page, WORDS[name], value)

    def _long(self, at):
        return struct.unpack_from("<Q", self.page, at)[0]

    def seen(self, call):
        return self._long(SEEN_AT + 8 * CALLS.index(call))

    @property
    def failed(self):
        return self._long(FAILED_AT)

    def fail(self, call, error, skip=0, repeat=1):
        """`skip` calls of that kind still succeed, the `repeat` after them fail with that errno."""
        self._put(call=0, error=error, skip=skip, repeat=repeat)
        self._put(call=CALLS.index(call))

    def cut_power(self, call, skip=0, seed=0):
        """At that call the power goes. seed 0: nothing un-synced survives; else a random half of it does."""
        self._put(call=0, error=0, skip=skip, repeat=0, seed=seed)
        self._put(call=CALLS.index(call))

    def set_clock(self, seconds):
        """From now on the daemon's wall clock is wrong by this."""
        struct.pack_into("<q", self.page, CLOCK_AT, seconds)

    def lie_about_syncs(self):
        self._put(ignore_sync=1)

    def slow_syncs(self, milliseconds):
        self._put(slow_ms=milliseconds)

    def clear(self):
        self._put(call=0, ignore_sync=0, slow_ms=0)


def sample(full, count):
    """All of them in full torture, else some, evenly spread; the first and the last are always among them."""
    values = list(full)
    if FULL or len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def error_name(number):
    return errno.errorcode[number]


def still_runs(process, seconds=0.0):
    """Whether the process has not ended within that time."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.01)
    return False
