#!/usr/bin/python3
"""redis_layouts.py - what a message costs a Redis server: in the queue's own keys, and in a stream with a consumer group.

    PYTHONPATH=test/tools python3 test/bench/redis_layouts.py [MESSAGES]

Both do the same for each message: put with an index by its id, lease, forget. The queue's own keys are those of
src/queue/redis, scripts and all; the stream does without fairness, order after a release, and a look at the oldest.
Prints CPU of the server and memory a message; the server writes to a file system in memory and syncs always.
"""
import os
import struct
import sys
import tempfile
from pathlib import Path

from redis import Redis

SCRIPTS = Path(__file__).resolve().parents[2] / "src/queue/redis"
BATCH, RECORD, CLIENTS = 256, os.urandom(400), 8

STREAM_PUT = """
for i = 1, #ARGV, 2 do
  local entry = redis.call('XADD', KEYS[1] .. ':stream', '*', 'i', ARGV[i], 'r', ARGV[i + 1])
  redis.call('HSET', KEYS[1] .. ':entries', ARGV[i], entry)
end
return #ARGV"""
STREAM_LEASE = """
local got = redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[1], 'COUNT', ARGV[2], 'STREAMS', KEYS[1] .. ':stream', '>')
return got and got[1][2] or {}"""
STREAM_SETTLE = """
local entries, ids = {}, {}
for i = 1, #ARGV, 2 do
  entries[#entries + 1], ids[#ids + 1] = ARGV[i], ARGV[i + 1]
end
redis.call('XACK', KEYS[1] .. ':stream', 'workers', unpack(entries))
redis.call('XDEL', KEYS[1] .. ':stream', unpack(entries))
redis.call('HDEL', KEYS[1] .. ':entries', unpack(ids))
return #ids"""


def script(name):
    """As the program puts it together: the shebang, what is common, the rest."""
    shebang, rest = (SCRIPTS / f"{name}.lua").read_text().split("\n", 1)
    return f"{shebang}\n{(SCRIPTS / 'common.lua').read_text()}{rest}"


class Own:
    name = "lists and sorted sets"

    def __init__(self, connection):
        self.c = connection
        self.sha = {name: connection.command("SCRIPT", "LOAD", script(name)) for name in ("put", "lease", "settle")}

    def run(self, name, *args):
        return self.c.command("EVALSHA", self.sha[name], 1, "bench:{0}", "", *args)

    def put(self, messages):
        words = []
        for i, (key, record) in enumerate(messages):
            words += [f"client-{i % CLIENTS}", "", b"", b"", 1, key, record]
        self.run("put", 86400000, *words)

    def lease(self):
        rows = self.run("lease", BATCH, 60000, b"token678", "bench", "f")
        return [as_bytes(key) for key in rows[::3]]

    def settle(self, leased):
        self.run("settle", *(w for key in leased for w in (key, b"token678", "d", 0, "")))


class Stream:
    name = "stream and consumer group"

    def __init__(self, connection):
        self.c = connection
        self.sha = [connection.command("SCRIPT", "LOAD", s) for s in (STREAM_PUT, STREAM_LEASE, STREAM_SETTLE)]
        connection.command("XGROUP", "CREATE", "bench:{0}:stream", "workers", "0", "MKSTREAM")

    def run(self, number, *args):
        return self.c.command("EVALSHA", self.sha[number], 1, "bench:{0}", *args)

    def put(self, messages):
        self.run(0, *(w for m in messages for w in m))

    def lease(self):
        return [(entry, as_bytes(fields[1])) for entry, fields in self.run(1, "worker", BATCH)]

    def settle(self, leased):
        self.run(2, *(w for pair in leased for w in pair))


def as_bytes(value):
    return value.encode() if isinstance(value, str) else value


def cpu_seconds(redis):
    info = redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def keys(count):
    """Ids as uuid.h makes them: time, counter, random."""
    for n in range(count):
        yield struct.pack(">IH", 0x0190, n >> 12) + struct.pack(">H", 0x7000 | n & 0xfff) + b"\x80" + os.urandom(7)


def measure(redis, layout, count):
    redis.command("FLUSHALL")
    with redis.connect(60) as connection:
        queue, ids = layout(connection), list(keys(count))
        empty = int(redis.info("memory")["used_memory"])
        marks = [cpu_seconds(redis)]
        for at in range(0, count, BATCH):
            queue.put([(key, RECORD) for key in ids[at:at + BATCH]])
        marks.append(cpu_seconds(redis))
        memory = (int(redis.info("memory")["used_memory"]) - empty) / count
        settled = 0
        while leased := queue.lease():
            queue.settle(leased)
            settled += len(leased)
        marks.append(cpu_seconds(redis))
    assert settled == count, settled
    put, rest = ((b - a) * 1e6 / count for a, b in zip(marks, marks[1:]))
    print(f"{layout.name:<28} put {put:5.1f} µs   lease and forget {rest:5.1f} µs   {memory:5.0f} bytes", flush=True)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200000
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        redis = Redis(directory).start()
        try:
            for layout in (Stream, Own, Stream, Own):
                measure(redis, layout, count)
        finally:
            redis.close()


main()
