"""Many clients that are slow on purpose: all are cut at their deadline, and a good client does not notice them.

SEALPOST_SLOW is how many there are of each kind, SEALPOST_SLOW_KINDS names the kinds (of slow.KINDS). What a good client
sees with and without them is printed (pytest -s), never asserted.
"""
import json
import os
import resource

import pytest

import slow
from daemon import Site, run_cli
from test_limits import counted
from waiting import eventually

COUNT = int(os.environ.get("SEALPOST_SLOW", "100"))
KINDS = os.environ.get("SEALPOST_SLOW_KINDS", ",".join(slow.KINDS)).split(",")
DEADLINE_S, GOOD_RATE, GOOD_FOR = (8, 100, "3s") if COUNT < 1000 else (10, 500, "6s")
# How much later than its deadline a connection may be seen to end: the tick, and a machine that is busy.
LATE_S = 20
COUNTED = [
    ("silent", "sealpost_tls_handshakes_total", {"outcome": "timeout"}),
    ("head", "sealpost_http_rejected_total", {"reason": "head_timeout"}),
    ("body", "sealpost_http_rejected_total", {"reason": "body_timeout"}),
    ("deaf", "sealpost_http_rejected_total", {"reason": "write_timeout"}),
]
PLENTY = str(6 * COUNT + 100)


@pytest.fixture
def patient_site(make_daemon):
    """A daemon that takes them all, and cuts them soon."""
    wanted = 6 * COUNT + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        pytest.skip(f"needs {wanted} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    settings = {f"{name}_timeout": f"{DEADLINE_S}s" for name in ("handshake", "head", "body", "write")}
    settings["idle_timeout"] = "10m"  # those that are open wait for the last of them
    settings |= {name: PLENTY for name in ("connections_max", "connections_per_address", "connections_per_client")}
    yield Site(make_daemon(settings=settings).start())
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def good_client(site, duration=GOOD_FOR):
    """A modest load on open connections; its figures."""
    who = site.identity
    result = run_cli("bench", "ingest", "--url", site.daemon.ready["ingest"], "--cert", who.cert, "--key", who.key,
                     "--ca", who.ca, "--connections", "8", "--rate", str(GOOD_RATE), "--duration", duration, "--json")
    return json.loads(result.stdout)


def resident_mib(site):
    with open(f"/proc/{site.daemon.pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) // 1024


def test_slow_crowd(patient_site):
    site = patient_site
    alone, at_rest = good_client(site), resident_mib(site)
    crowd = slow.Crowd(site.daemon.address(), site.identity, COUNT, KINDS)
    try:
        opened = resident_mib(site)
        crowd.begin()
        meanwhile = good_client(site, "1s")
        crowd.began()
        beside, under = good_client(site), resident_mib(site)
        result = crowd.result()
    finally:
        crowd.close()
    print(f"\n{COUNT} of each kind: {json.dumps(result)}\nresident: {at_rest} MiB at rest, {opened} open, {under} slow")
    figures_of = {"alone": alone, "while they begin": meanwhile, "beside them": beside}
    for name, figures in figures_of.items():
        print(f"good client {name}: p50 {figures['latency_p50_us'] / 1000:.1f} ms, "
              f"p99 {figures['latency_p99_us'] / 1000:.1f} ms, {figures['messages']} messages")
    for figures in figures_of.values():
        assert set(figures["statuses"]) == {"202"} and not any(figures["failures"].values())
    for kind in KINDS:
        assert result[kind]["cut"] == result[kind]["count"] == COUNT, kind
        assert DEADLINE_S - 1 <= result[kind]["first_s"] and result[kind]["last_s"] <= DEADLINE_S + LATE_S, kind
    eventually(lambda: counted(site, "sealpost_http_connections") == 0, "nothing of them is left")
    for kind, metric, label in COUNTED:
        wanted = COUNT * (kind in KINDS)
        eventually(lambda m=metric, by=label, n=wanted: counted(site, m, **by) >= n, f"all of {kind} are counted")
        assert counted(site, metric, **label) == wanted, kind
