"""Domains: which clients there may be, and what is different from one domain to the next."""
import json
import signal

from client import Client
from daemon import run_cli
from waiting import eventually

LISTED = """
domains:
  example.com:
    display_name: Example Ltd
  slow.example:
    rate: 1
"""


def issue(daemon, name, *options):
    return daemon.cli("cert", "issue", name, "--out", daemon.certs, *options, check=False)


def configure(daemon, text):
    for role in daemon.roles:
        role.data.mkdir(exist_ok=True)
        (role.data / "sealpost.yaml").write_text(text)
    return daemon


def test_any_domain_while_none_is_listed(make_daemon):
    daemon = make_daemon()
    assert issue(daemon, "a", "--domain", "anything.example").returncode == 0
    assert issue(daemon, "b").returncode == 0


def test_a_domain_that_nobody_had_is_pointed_out(make_daemon):
    """Nothing is listed, so it may be meant; or it is a typing mistake."""
    daemon = make_daemon()
    note = "note: 'exmaple.com' is a new domain"
    assert note in issue(daemon, "a", "--domain", "exmaple.com").stderr
    assert issue(daemon, "b", "--domain", "exmaple.com").stderr == ""
    assert issue(daemon, "w", "--role", "worker", "--domain", "workers").stderr == ""
    assert daemon.json("client", "add", "c", "--domain", "third.example")["new_domain"] is True
    # The very first one is none of these.
    empty = make_daemon(fresh=True)
    empty.cli("init")
    assert "note" not in issue(empty, "first", "--domain", "example.com").stderr
    configure(daemon, LISTED)
    assert issue(daemon, "d", "--domain", "slow.example").stderr == ""


def test_refused_from_the_start_where_the_option_says_so(make_daemon):
    daemon = configure(make_daemon(), "unlisted_domains: refuse\n")
    result = issue(daemon, "a", "--domain", "example.com")
    assert result.returncode == 1 and "none at all" in result.stderr
    configure(daemon, "unlisted_domains: accept\n" + LISTED)
    assert issue(daemon, "a", "--domain", "elsewhere.example").returncode == 0


def test_init_lists_the_first_domains(tmp_path):
    data = tmp_path / "data"
    init = ("init", "--data", data, "--domain", "example.com", "--domain", "b.example", "--domain", "example.com")
    run_cli(*init)
    run_cli(*init)  # safe to repeat
    shown = json.loads(run_cli("config", "show", "--config", data / "sealpost.yaml", "--json").stdout)
    assert list(shown["domains"]) == ["b.example", "example.com"]
    refused = run_cli("client", "add", "a", "--domain", "exmaple.com", "--data", data, check=False)
    assert refused.returncode == 1 and "b.example, example.com" in refused.stderr
    run_cli("client", "add", "a", "--domain", "example.com", "--data", data)
    later = run_cli("init", "--data", data, "--domain", "c.example", check=False)
    assert later.returncode == 1 and "add 'c.example' under domains:" in later.stderr
    wrong = run_cli("init", "--data", tmp_path / "other", "--domain", "a b", check=False)
    assert wrong.returncode == 1 and not (tmp_path / "other").exists()


def test_unknown_domains_are_refused_with_the_known_ones(make_daemon):
    daemon = configure(make_daemon(), LISTED)
    for options in (["--domain", "exmaple.com"], []):
        result = issue(daemon, "a", *options)
        assert result.returncode == 1
        assert "example.com, slow.example" in result.stderr
    assert issue(daemon, "a", "--domain", "example.com").returncode == 0
    assert issue(daemon, "a-worker", "--role", "worker").returncode == 0
    assert {c["name"]: c.get("domain_display_name") for c in daemon.json("client", "list")}["a"] == "Example Ltd"


def test_who_is_there_stays_and_can_renew(make_daemon):
    daemon = configure(make_daemon(), "domains:\n  other.example:\n")
    assert daemon.cli("cert", "renew", "client_001", "--out", daemon.certs).returncode == 0
    daemon.start()
    with Client(daemon.address(), daemon.issued("client_001")) as client:
        answer = client.post()
        assert answer.status == 202 and answer.json["domain"] == "example.com"
    eventually(lambda: [m["domain"] for m in daemon.messages()] == ["example.com"], "its domain is stored with it")


def test_a_domain_added_by_reload(make_daemon):
    daemon = configure(make_daemon(), LISTED).start()
    assert issue(daemon, "n", "--domain", "new.example").returncode == 1
    configure(daemon, LISTED + "  new.example:\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: issue(daemon, "n", "--domain", "new.example").returncode == 0, "the new domain is known")


def test_rate_of_one_domain(make_daemon):
    daemon = configure(make_daemon(), LISTED).start()
    slow = daemon.issue("slow", "--domain", "slow.example")
    with Client(daemon.address(), slow) as client:
        eventually(lambda: client.post().status == 429, "more than one a second", interval=0)
    with Client(daemon.address(), daemon.issued("client_001")) as client:
        assert [client.post().status for _ in range(20)] == [202] * 20


def test_delivered_messages_go_when_their_time_is_over(make_daemon):
    """Of the domain whose time is over, and of no other; counted in the audit trail."""
    daemon = make_daemon()
    short = daemon.issue("short", "--domain", "short.example")
    daemon.start()
    for identity, count in ((short, 3), (daemon.issued("client_001"), 2)):
        with Client(daemon.address(), identity) as client:
            assert [client.post().status for _ in range(count)] == [202] * count
    eventually(lambda: len(daemon.delivered()) == 5, "all are delivered")
    daemon.stop()
    configure(daemon, "domains:\n  short.example:\n    retention: 1ms\n  example.com:\n    retention: 30d\n")
    daemon.start()
    eventually(lambda: {m["domain"] for m in daemon.messages()} == {"example.com"}, "the old ones go")
    assert len(daemon.messages()) == 2
    eventually(lambda: daemon.json("audit", "list", "--action", "messages.expire"), "it is in the audit trail")
    [row] = daemon.json("audit", "list", "--action", "messages.expire")
    assert (row["actor"], row["target"], row["detail"]) == ("sealpost", "short.example", {"messages": 3})
    assert daemon.json("queue", "stats")


def test_a_token_for_an_unknown_domain_is_refused(make_daemon):
    daemon = configure(make_daemon(), LISTED)
    result = daemon.cli("client", "add", "device-1", "--domain", "nowhere.example", check=False)
    assert result.returncode == 1 and "example.com, slow.example" in result.stderr
    assert "device-1" not in [c["name"] for c in daemon.json("client", "list")]
