#!/usr/bin/python3
"""Five times more than it can take, in a group with little memory: what then?

    SEALPOST_BIN=build/sealpost test/torture/overload.py [--seconds N] [--memory MIB] [--cpu PERCENT]

Measures the peak (the best of closed loops with few and with many requests in flight), offers FACTOR times as much at a fixed rate, and looks afterwards:

    goodput     what is accepted under overload is at least GOODPUT of the peak
    memory      the process stays within the group's limit, and nothing in the group is killed
    nothing     acknowledged is lost: every id that the generator has written down is delivered
    normal      again within NORMAL_S: the load from before is accepted without a refusal, about as fast

Needs root and the cgroup v1 controllers of memory and CPU. The CPU share keeps the generator, which works on the same
machine, from being what is measured. Prints the figures; exit code 0: all four hold, 1: not, 77: cannot be run here.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from daemon import CLIENT, binary, environment, make_template  # noqa: E402
from waiting import NeverHappened, eventually  # noqa: E402

FACTOR, GOODPUT, NORMAL_S = 5, 0.9, 10
MEMORY_MIB, CPU_PERCENT, SECONDS = 128, 40, 10
MODEST = {"connections": 64}
# One request a connection in flight, as with clients that wait for their answer. (Pipelined, a closed loop sends its
# requests by the dozen and an open loop one by one, which cost the server different amounts: no peak to compare with.)
MANY = {"connections": 1024}
CGROUP = Path("/sys/fs/cgroup")
CPU_PERIOD_US = 100000
CANNOT_RUN = 77


class Group:
    """A control group of the memory and the CPU controller."""

    def __init__(self, memory_mib, cpu_percent):
        self.memory, self.cpu = (CGROUP / c / f"sealpost-overload-{os.getpid()}" for c in ("memory", "cpu"))
        self.memory.mkdir()
        self.cpu.mkdir()
        (self.memory / "memory.limit_in_bytes").write_text(str(memory_mib << 20))
        (self.cpu / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
        (self.cpu / "cpu.cfs_quota_us").write_text(str(CPU_PERIOD_US * cpu_percent // 100))

    def wrapper(self):
        enter = "; ".join(f"echo $$ >{g}/cgroup.procs" for g in (self.memory, self.cpu))
        return ["sh", "-c", f'{enter}; exec "$@"', "sh"]

    def kills(self):
        lines = dict(line.split() for line in (self.memory / "memory.oom_control").read_text().splitlines())
        return int(lines["oom_kill"])

    def close(self):
        for g in (self.memory, self.cpu):
            eventually(lambda: not (g / "cgroup.procs").read_text(), "all of the group have ended")
            g.rmdir()


def can_run():
    return os.geteuid() == 0 and all(
        os.access(CGROUP / c / "cgroup.procs", os.W_OK) for c in ("memory", "cpu"))


class Bench:
    """`sealpost bench ingest` against one daemon."""

    def __init__(self, daemon, ledger):
        who = daemon.issued(CLIENT)
        self.command = [binary(), "bench", "ingest", "--url", daemon.ready["ingest"], "--cert", who.cert, "--key",
                        who.key, "--ca", who.ca, "--ledger", ledger, "--json"]

    def run(self, **options):
        words = [w for name, value in options.items() for w in (f"--{name}", str(value))]
        result = subprocess.run([*self.command, *words], capture_output=True, text=True, env=environment(None))
        if not result.stdout:
            raise RuntimeError(result.stderr)
        return json.loads(result.stdout)


def goodput(figures):
    return figures["statuses"].get("202", 0) / figures["seconds"]


def peak_rss_mib(daemon):
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def is_normal(figures, before):
    return set(figures["statuses"]) == {"202"} and not any(figures["failures"].values()) \
        and figures["latency_p50_us"] <= 5 * max(before["latency_p50_us"], 1000)


def time_until_normal(bench, rate, before):
    """Seconds from now until a second of modest load is served as before."""
    began = time.monotonic()

    def normal():
        return is_normal(bench.run(**MODEST, rate=rate, duration="1s", warmup="0s"), before)
    try:
        eventually(normal, "normal again", timeout=6 * NORMAL_S)
    except NeverHappened:
        return float("inf")
    return time.monotonic() - began


def lost(daemon, ledger):
    """Ids acknowledged and not delivered once the queue is empty."""
    eventually(lambda: (s := daemon.json("queue", "stats"))["queued"] + s["processing"] == 0, "all is delivered",
               timeout=600, interval=1)
    acknowledged = set(ledger.read_text().split())
    delivered = {m["message_id"] for m in daemon.json("messages", "list", "--limit", 1000000, timeout=600)
                 if m["status"] == "delivered"}
    return len(acknowledged), len(acknowledged - delivered)


def measure(daemon, group, ledger, seconds):
    bench = Bench(daemon, ledger)
    peak = max(goodput(bench.run(**shape, duration=f"{seconds}s")) for shape in (MODEST, MANY))
    modest = max(1, round(peak / 4))
    before = bench.run(**MODEST, rate=modest, duration="3s")
    over = bench.run(**MANY, rate=round(FACTOR * peak), duration=f"{seconds}s")
    normal_s = time_until_normal(bench, modest, before)
    acknowledged, missing = lost(daemon, ledger)
    return {"peak_per_s": round(peak), "offered_per_s": round(FACTOR * peak), "unsent": over["requests_unsent"],
            "goodput_per_s": round(goodput(over)), "goodput_of_peak": round(goodput(over) / peak, 3),
            "overload_statuses": over["statuses"],
            "overload_failures": {k: v for k, v in over["failures"].items() if v},
            "overload_p99_ms": round(over["latency_p99_us"] / 1000, 1), "peak_rss_mib": round(peak_rss_mib(daemon), 1),
            "killed_in_group": group.kills(), "normal_after_s": round(normal_s, 1),
            "acknowledged": acknowledged, "lost": missing}


def run(memory_mib, cpu_percent, seconds):
    """The figures of one run, on a daemon made for it."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = make_template(directory)
        group = Group(memory_mib, cpu_percent)
        daemon.wrapper = group.wrapper()
        try:
            return measure(daemon.start(), group, Path(directory) / "ledger", seconds)
        finally:
            daemon.kill()
            group.close()


def verdict(figures, memory_mib):
    """What does not hold, as text."""
    bars = {
        f"goodput is at least {GOODPUT} of the peak": figures["goodput_of_peak"] >= GOODPUT,
        f"memory stays below {memory_mib} MiB": figures["peak_rss_mib"] < memory_mib and not figures["killed_in_group"],
        "nothing acknowledged is lost": figures["lost"] == 0 and figures["acknowledged"] > 0,
        f"normal again within {NORMAL_S} s": figures["normal_after_s"] <= NORMAL_S,
    }
    return [bar for bar, holds in bars.items() if not holds]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"of each load ({SECONDS})")
    parser.add_argument("--memory", type=int, default=MEMORY_MIB, help=f"limit in MiB ({MEMORY_MIB})")
    parser.add_argument("--cpu", type=int, default=CPU_PERCENT, help=f"share of one CPU in percent ({CPU_PERCENT})")
    args = parser.parse_args()
    if not can_run():
        print("overload: needs root and writable cgroup v1 controllers for memory and cpu", file=sys.stderr)
        return CANNOT_RUN
    figures = run(args.memory, args.cpu, args.seconds)
    print(json.dumps(figures, indent=1))
    broken = verdict(figures, args.memory)
    for bar in broken:
        print(f"does not hold: {bar}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
