"""sealpost bench e2e: what it counts is what happened; no figure of speed is judged here."""
import csv
import io
import json

from daemon import run_cli

OK, FAILED, USAGE, UNAVAILABLE = 0, 1, 2, 5


def bench(site, *options, metrics=None, check=True):
    who = site.identity
    places = [metrics] if metrics else [f"{role.command}={role.ready['metrics']}" for role in site.daemon.roles]
    return run_cli("bench", "e2e", "--url", site.daemon.ready["ingest"], "--cert", who.cert, "--key", who.key, "--ca",
                   who.ca, *(word for place in places for word in ("--metrics", place)), *options, check=check)


def test_counts_what_is_stored(site):
    answer = json.loads(bench(site, "--messages", "200", "--connections", "4", "--json").stdout)
    assert answer["messages_in_all"] == 200 and answer["not_stored"] == 0
    assert len(site.daemon.delivered()) == 200
    assert answer["stored_duplicates"] == answer["dead_letters"] == answer["leases_lost"] == 0
    assert answer["durability"].startswith("sqlite" if site.daemon.proxy is site.daemon else "redis")
    assert 0 < answer["accept_to_stored_p50_us"] <= answer["accept_to_stored_p99_9_us"]
    front = site.daemon.proxy.command
    assert answer[f"cpu_{front}_us_per_message"] >= answer[f"cpu_{front}_io_us_per_message"] > 0


def test_for_people_and_for_tables(site):
    load = ("--duration", "1s", "--warmup", "100ms", "--connections", "4")
    text = bench(site, *load).stdout
    assert all(words in text for words in ("messages accepted", "messages stored", "accepted to stored", "deliver"))
    heading, values = csv.reader(io.StringIO(bench(site, *load, "--csv").stdout))
    assert dict(zip(heading, values))["not_stored"] == "0" and len(heading) == len(values)


def test_what_is_not_stored_is_told(site):
    site.daemon.cli("queue", "pause", "delivery")
    result = bench(site, "--messages", "20", "--connections", "2", "--drain", "200ms", "--json", check=False)
    assert (result.returncode, json.loads(result.stdout)["not_stored"]) == (FAILED, 20)


def test_metrics_that_are_not_there(site):
    result = bench(site, metrics="worker=http://127.0.0.1:1", check=False)
    assert result.returncode == UNAVAILABLE and "metrics of worker" in result.stderr


def test_usage(site):
    assert bench(site, "--pid", "redis", check=False).returncode == USAGE
    assert bench(site, "--drain", "soon", check=False).returncode == USAGE
    who = site.identity
    result = run_cli("bench", "e2e", "--url", "https://127.0.0.1:1", "--cert", who.cert, "--key", who.key, "--ca", who.ca,
                     check=False)
    assert result.returncode == USAGE and "--metrics" in result.stderr
