"""sealpost check: every state of every check, with a daemon and without one, in every format."""
import json
import os
import re
import signal

import pytest

from daemon import Site, run_cli
from waiting import eventually

OK, WARNING, CRITICAL, UNKNOWN = range(4)
CHECKS = ["queue", "age", "dead", "cert", "crl", "disk", "store"]
# Thresholds that nothing, or everything, is worse than.
RELAXED = {"queue": "1000000", "age": "365d", "dead": "1000000", "cert": "1s", "crl": "1s", "disk": "1", "store": "1h"}
STRICT = {"cert": "10000d", "crl": "365d", "disk": "1000TiB"}
NAGIOS = re.compile(r"SEALPOST (\w+) (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \| \w+=[0-9.]+(s|B)?;[0-9.:]+;[0-9.:]+;0"
                    r"( \w+=[0-9.]+(s|B)?)*)?\n")


def check(daemon, *words, env=None):
    result = daemon.cli("check", *words, check=False, env=env)
    return result.returncode, result.stdout


@pytest.mark.parametrize("name", CHECKS)
def test_all_is_well(shared, name):
    code, line = check(shared.daemon, name, "--warning", RELAXED[name], "--critical", RELAXED[name])
    assert code == OK, line
    assert NAGIOS.fullmatch(line).group(1, 2) == (name.upper(), "OK")


@pytest.mark.parametrize("name", CHECKS)
def test_without_a_daemon(make_daemon, name):
    daemon = make_daemon()
    code, line = check(daemon, name, "--warning", RELAXED[name], "--critical", RELAXED[name])
    assert (code, NAGIOS.fullmatch(line).group(2)) == (OK, "OK"), line


@pytest.mark.parametrize("name", CHECKS)
def test_formats(shared, name):
    thresholds = ("--warning", RELAXED[name], "--critical", RELAXED[name])
    code, text = check(shared.daemon, name, "--format", "json", *thresholds)
    answer = json.loads(text)
    assert (code, answer["check"], answer["state"], answer["code"]) == (OK, name, "ok", OK)
    assert answer["text"] and "warning" in answer["values"][0]
    code, text = check(shared.daemon, name, "--format", "prometheus", *thresholds)
    assert code == OK
    assert f'sealpost_check_state{{check="{name}"}} 0\n' in text
    assert f'value="{answer["values"][0]["name"]}"' in text
    code, text = check(shared.daemon, name, "--format", "text", *thresholds)
    assert code == OK and text.startswith(f"ok  {name}: ")


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize("option,state", [("warning", WARNING), ("critical", CRITICAL)])
def test_too_little_is_left(shared, name, option, state):
    code, line = check(shared.daemon, name, "--warning", RELAXED[name], "--critical", RELAXED[name],
                       f"--{option}", STRICT[name])
    assert code == state, line


@pytest.mark.parametrize("option,state", [("warning", WARNING), ("critical", CRITICAL)])
def test_messages_that_wait(site, option, state):
    site.daemon.cli("queue", "pause", "delivery")
    with site.client() as client:
        assert client.post().status == 202
    site.daemon.cli("queue", "resume", "delivery")
    eventually(lambda: (s := site.daemon.json("queue", "stats"))["queued"] + s["processing"] == 0, "delivered")
    assert check(site.daemon, "queue", "--warning", "0", "--critical", "0")[0] == OK, "0 is not above 0"
    site.daemon.cli("queue", "pause", "delivery", "--reason", "a | b")
    with site.client() as client:
        assert client.post().status == 202
    for name, bound in ("queue", "0"), ("age", "0s"):
        other = {"warning": "critical", "critical": "warning"}[option]
        code, line = check(site.daemon, name, f"--{option}", bound, f"--{other}", RELAXED[name])
        assert code == state, line
    code, line = check(site.daemon, "queue")
    assert code == WARNING and "delivery is paused: a / b" in line, "a pause is worth a warning"
    assert NAGIOS.fullmatch(line)


def test_dead_letters(make_daemon):
    daemon = make_daemon(settings={"message_lifetime": "1ms"}).start()
    daemon.cli("queue", "pause", "delivery")
    with Site(daemon).client() as client:
        assert client.post().status == 202
    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: daemon.json("queue", "stats")["failed"] == 1, "the message is given up")
    assert check(daemon, "dead")[0] == WARNING, "one dead letter is worth a look"
    assert check(daemon, "dead", "--critical", "0")[0] == CRITICAL
    assert check(daemon, "dead", "--warning", "1")[0] == OK


def test_certificates_that_were_given_out(site):
    site.daemon.issue("short", "--domain", "example.com", "--days", "5")
    assert check(site.daemon, "cert")[0] == OK, "nobody asked for it"
    code, line = check(site.daemon, "cert", "--issued")
    assert code == WARNING and "client short" in line
    assert check(site.daemon, "cert", "--issued", "--critical", "10d")[0] == CRITICAL
    site.daemon.cli("cert", "issue", "short", "--domain", "example.com", "--out", site.daemon.directory / "again")
    assert check(site.daemon, "cert", "--issued")[0] == OK, "its bearer has a newer one"


def test_low_disk_is_judged_by_what_the_proxy_needs(shared):
    code, line = check(shared.daemon, "disk", env={"SEALPOST_DISK_FREE_MIN": "1TiB"})
    assert code == CRITICAL, line


def test_what_cannot_be_asked_is_unknown(make_daemon, tmp_path):
    for name in CHECKS:
        result = run_cli("check", name, "--data", tmp_path / "nowhere", check=False)
        assert result.returncode == UNKNOWN, name
        assert NAGIOS.fullmatch(result.stdout), result.stdout


def test_a_daemon_that_stands_still_is_critical(site):
    os.kill(site.daemon.server.pid, signal.SIGSTOP)
    try:
        code, line = check(site.daemon, "queue")
    finally:
        os.kill(site.daemon.server.pid, signal.SIGCONT)
    assert code == CRITICAL and "does not answer" in line


@pytest.mark.parametrize("words", [(), ("nonsense",), ("queue", "--warning", "many"), ("age", "--warning", "5"),
                                   ("disk", "--critical", "5s"), ("queue", "--format", "xml"),
                                   ("queue", "--issued")], ids=" ".join)
def test_wrong_usage_is_unknown(words):
    result = run_cli("check", *words, check=False)
    assert (result.returncode, result.stdout) == (UNKNOWN, "")
    assert result.stderr


def test_help():
    assert all(name in run_cli("check", "--help").stdout for name in CHECKS)
    for name in CHECKS:
        assert f"sealpost check {name}" in run_cli("check", name, "--help").stdout
