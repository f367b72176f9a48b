"""The command line: overview, help, exit codes, JSON, certificates, configuration."""
import json
import os
import re
import stat
import subprocess

import pytest

from client import Client
from daemon import Identity, binary, run_cli
from waiting import eventually

OK, FAILED, USAGE, NOT_FOUND, REFUSED, UNAVAILABLE = range(6)
NO_SUCH_ID = "0190163d-8694-739b-aea5-966c26f8ad91"

COMMANDS = ["up", "proxy", "worker", "server", "init", "cert", "ca", "client", "messages", "queue", "check", "audit",
            "config", "send", "tls", "enroll", "renew", "bench", "version"]
SUBCOMMANDS = {
    "cert": ["issue", "renew", "list", "expiring", "show", "revoke", "verify"],
    "ca": ["show", "crl", "export-root", "import-root", "rotate-issuing", "passphrase"],
    "client": ["add", "list", "show", "suspend", "resume", "remove", "token", "tokens", "revoke-token"],
    "messages": ["list", "follow", "show"],
    "queue": ["stats", "list", "dead", "show", "redrive", "purge", "pause", "resume"],
    "audit": ["list", "verify", "export"],
    "config": ["check", "show", "reference"],
    "tls": ["check", "serve"],
    "bench": ["ingest", "e2e"],
}
PAIRS = [(command, sub) for command, subs in SUBCOMMANDS.items() for sub in subs]


# --- finding one's way ---

def test_alone_it_prints_one_screen():
    overview = run_cli().stdout
    assert names_in(overview) == COMMANDS
    assert len(overview.splitlines()) <= 40 and max(map(len, overview.splitlines())) <= 100


def names_in(overview):
    """The names in an overview of commands."""
    return re.findall(r"^  ([a-z0-9-]+) ", overview, re.M)


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_subcommand_is_listed(command):
    assert names_in(run_cli(command, "--help").stdout) == SUBCOMMANDS[command]


@pytest.mark.parametrize("words", [(c,) for c in COMMANDS] + PAIRS, ids=" ".join)
def test_help(words):
    text = run_cli(*words, "--help").stdout
    assert text.startswith(f"usage: sealpost {' '.join(words)}")
    if words in PAIRS:
        assert f"sealpost {' '.join(words)}" in text.split("example")[1]


USAGE_ERRORS = [
    ("nonsense",), ("cert",), ("cert", "nonsense"), ("cert", "issue"), ("cert", "issue", "a", "b"),
    ("cert", "issue", "a", "--no-such-option"), ("cert", "issue", "a", "--days"), ("cert", "issue", "a", "--days", "x"),
    ("cert", "issue", "a", "--days", "0"), ("messages", "show"), ("messages", "list", "--limit", "-1"),
    ("queue", "pause", "everything"), ("queue", "list", "nonsense"), ("queue", "redrive"), ("queue", "purge", "--dry-run"),
    ("queue", "stats", "--data", ""), ("messages", "list", "--status", "lost"), ("messages", "list", "--since", "yesterday"),
    ("send",), ("send", "12345", "text"),
]


@pytest.mark.parametrize("words", USAGE_ERRORS, ids=" ".join)
def test_usage_errors(words, tmp_path):
    result = run_cli(*words, check=False, env={"SEALPOST_DATA": str(tmp_path / "data")})
    assert result.returncode == USAGE
    assert result.stdout == ""
    assert result.stderr.startswith(("sealpost", "usage: sealpost"))


def test_a_filter_that_is_no_text_is_not_left_out(shared):
    result = shared.daemon.cli("queue", "purge", "--client", "\udcff", "--before", "2100-01-01T00:00:00Z", check=False)
    assert result.returncode == FAILED and "UTF-8" in result.stderr


def test_output_that_gets_lost_is_a_failure():
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run([binary(), "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == FAILED and "No space left" in result.stderr


@pytest.mark.parametrize("setting", ["nonsense", "no_such_option=1", "io_threads=many", "io_threads=65"])
def test_settings_that_cannot_be(setting, tmp_path):
    result = run_cli("up", "--data", tmp_path / "data", "--set", setting, check=False)
    assert result.returncode in (FAILED, USAGE)
    assert setting.split("=")[0] in result.stderr
    assert not (tmp_path / "data").exists(), "nothing is made before the settings are understood"


@pytest.mark.parametrize("url,named", [("", "is not set"), ("main:8000", "https://HOST"), ("http://main:8000", "https://HOST")])
def test_a_role_alone_needs_to_know_the_main_server(url, named, tmp_path):
    result = run_cli("worker", "--data", tmp_path / "data", "--set", "queue_driver=redis", "--set", f"server_url={url}",
                     check=False)
    assert result.returncode == FAILED and "server_url" in result.stderr and named in result.stderr


def test_a_misspelt_option_is_told_the_nearest():
    result = run_cli("up", "--set", "retry_intervall=3s", check=False)
    assert "retry_interval" in result.stderr.replace("retry_intervall", "")


def test_version():
    assert run_cli("version").stdout == run_cli("--version").stdout
    assert json.loads(run_cli("version", "--json").stdout)["version"] in run_cli("version").stdout


# --- data directory ---

def test_init_is_safe_to_repeat(make_daemon):
    daemon = make_daemon(fresh=True)
    daemon.cli("init")
    before = {p: (p.read_bytes(), p.stat().st_mode) for p in daemon.data.rglob("*") if p.is_file()}
    daemon.cli("init")
    keys = [p for p in before if p.suffix == ".key"]
    assert keys and all(p.read_bytes() == before[p][0] for p in keys), "no key is made anew"
    daemon.start()


def test_nothing_secret_is_readable_by_others(site):
    with site.client() as client:
        assert client.post().status == 202
    for path in [site.daemon.data, *site.daemon.data.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        public = path.suffix in (".pem", ".crl", ".der", ".yaml")
        assert public or mode & 0o077 == 0, f"{path.relative_to(site.daemon.directory)} has mode {mode:o}"
    assert stat.S_IMODE(site.identity.key.stat().st_mode) == 0o600


def test_json_outputs(shared):
    for words, kind in {("cert", "list"): list, ("messages", "list"): list, ("queue", "list"): list,
                        ("queue", "dead"): list, ("queue", "stats"): dict, ("ca", "show"): dict,
                        ("config", "show"): dict}.items():
        assert isinstance(shared.daemon.json(*words), kind), words


@pytest.mark.parametrize("words", [("messages", "show", NO_SUCH_ID), ("cert", "show", "0102030405"),
                                   ("cert", "revoke", "nobody")], ids=" ".join)
def test_not_found(shared, words):
    result = shared.daemon.cli(*words, check=False)
    assert result.returncode == NOT_FOUND
    assert result.stderr.count("\n") <= 2 and result.stderr.startswith("sealpost ")


def test_names_added_later_come_into_the_certificate(make_daemon):
    daemon = make_daemon(fresh=True)
    cert = daemon.data / "tls" / "proxy.pem"
    daemon.cli("init")
    first = cert.read_bytes()
    daemon.cli("init")
    assert cert.read_bytes() == first
    daemon.cli("init", "--set", "tls_names=broker.example.com, 192.0.2.7")
    second = cert.read_bytes()
    assert second != first
    daemon.cli("init", "--set", "tls_names=192.0.2.7")
    assert cert.read_bytes() == second


def test_a_key_without_its_certificate_is_replaced(make_daemon):
    daemon = make_daemon(fresh=True)
    daemon.cli("init")
    key, other = daemon.data / "tls" / "proxy.key", daemon.data / "tls" / "server.key"
    key.write_bytes(other.read_bytes())
    daemon.start()
    assert key.read_bytes() != other.read_bytes()


def test_up_needs_no_init(make_daemon):
    make_daemon(fresh=True).start()


def test_commands_without_a_daemon_work_on_the_directory(make_daemon):
    daemon = make_daemon(fresh=True)
    daemon.cli("init")
    identity = daemon.issue("offline", "--domain", "example.com")
    assert [c["name"] for c in daemon.json("cert", "list") if c["role"] == "client"] == ["offline"]
    daemon.start()
    with Client(daemon.address(), identity) as client:
        assert client.post().status == 202


# --- messages and queue ---

def test_list_filters_and_order(site):
    other = site.daemon.issue("other", "--domain", "example.org")
    with site.client() as a, site.client(other) as b:
        ids = []
        for i, c in enumerate((a, b, a, b, a)):
            ids.append(c.post(f"text {i}").json["message_id"])
            # One after the other: the order is that of arrival in the store, and there are two deliveries at once.
            eventually(lambda: site.daemon.delivered() == set(ids), "it is delivered")

    def listed(*options):
        return [m["message_id"] for m in site.daemon.json("messages", "list", *options)]
    assert listed() == ids[::-1], "newest first"
    assert listed("--limit", "2") == ids[:-3:-1]
    assert listed("--client", "other") == [ids[3], ids[1]]
    assert listed("--domain", "example.com") == [ids[4], ids[2], ids[0]]
    assert listed("--status", "failed") == []
    assert len(listed("--sender", "+4915112345678")) == 5
    assert listed("--sender", "+4915112345679") == []
    assert "text" not in site.daemon.cli("messages", "list").stdout.replace("text/", ""), "a list shows no texts"


def test_pause_and_resume_accepting(site):
    site.daemon.cli("queue", "pause", "accept", "--reason", "moving house")
    with site.client() as client:
        # A proxy that is a process of its own looks once a second.
        eventually(lambda: client.post().status == 503, "accepting is paused")
        assert int(client.post().header("retry-after")) >= 1
        site.daemon.cli("queue", "resume", "accept")
        eventually(lambda: client.post().status == 202, "accepting goes on")


def test_send(site):
    d = site.daemon
    where = ["--url", d.ready["ingest"], "--cert", site.identity.cert, "--key", site.identity.key,
             "--ca", site.identity.ca]
    run_cli("send", *where, "+4915112345678", "hello from send")
    lines = "".join(json.dumps({"sender_number": "+4915112345678", "message_body": f"line {i}"}) + "\n"
                    for i in range(20))
    run_cli("send", *where, "--file", "-", input=lines)
    eventually(lambda: len(d.delivered()) == 21, "all that was sent is delivered")
    refused = run_cli("send", *where, "+4915112345678", "x" * 1001, check=False)
    assert refused.returncode != OK and "1000" in refused.stderr


def test_send_to_nobody(site):
    address, d = "https://127.0.0.1:1", site.identity
    result = run_cli("send", "--url", address, "--cert", d.cert, "--key", d.key, "--ca", d.ca, "+4915112345678", "x",
                     check=False)
    assert result.returncode == UNAVAILABLE
    assert "127.0.0.1:1" in result.stderr


# --- certificates ---

KEYS = ["ec:P-256", "ec:P-384", "rsa:2048", "rsa:3072", "rsa:4096"]
ROLES = ["client", "proxy", "worker", "server", "monitor", "admin"]


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("options", [("--role", r) for r in ROLES] + [("--key", k) for k in KEYS], ids=" ".join)
def test_issued_certificates_pass_the_strict_check(shared, options):
    name = "x-" + options[1].replace(":", "-")
    identity = shared.daemon.issue(name, *options)
    verdict = openssl("verify", "-x509_strict", "-policy_check", "-CAfile", identity.ca, "-untrusted", identity.cert,
                      identity.cert)
    assert verdict.strip().endswith(": OK")
    text = openssl("x509", "-in", identity.cert, "-noout", "-subject", "-ext", "subjectAltName,basicConstraints")
    role = options[1] if options[0] == "--role" else "client"
    assert f"CN = {name}" in text and "CA:FALSE" in text
    assert f"URI:spiffe://sealpost.local/{role}/" in text
    assert openssl("x509", "-in", identity.cert, "-noout", "-pubkey") == openssl("pkey", "-in", identity.key, "-pubout")
    assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600


@pytest.mark.parametrize("key", KEYS)
def test_every_kind_of_key_can_post(shared, key):
    with shared.client(shared.new_identity("--key", key)) as client:
        assert client.post().status == 202


def test_certificate_for_a_signing_request(shared, tmp_path):
    key, csr, out = tmp_path / "own.key", tmp_path / "own.csr", tmp_path / "out"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
            "-subj", "/CN=somebody else", "-out", csr)
    shared.daemon.cli("cert", "issue", "own-key", "--csr", csr, "--out", out)
    assert not (out / "own-key.key").exists()
    with shared.client(Identity("own-key", out / "own-key.pem", key, out / "ca.pem")) as client:
        answer = client.post()
    assert answer.status == 202 and answer.json["client_id"] == "own-key", "the name is ours, not the request's"


@pytest.mark.parametrize("words", [("bad name",), ("a" * 65,), ("a/b",), ("..",), ("ok", "--domain", "a b"),
                                   ("ok", "--role", "king"), ("ok", "--key", "dsa:1024"), ("ok", "--days", "9999"),
                                   ("ok", "--csr", "/no/such/file")], ids=" ".join)
def test_what_is_not_issued(shared, tmp_path, words):
    result = shared.daemon.cli("cert", "issue", *words, "--out", tmp_path / "out", check=False)
    assert result.returncode in (FAILED, USAGE, NOT_FOUND) and result.stderr
    assert not list(tmp_path.rglob("*.pem"))


def test_weak_signing_request(shared, tmp_path):
    csr = tmp_path / "weak.csr"
    openssl("req", "-new", "-newkey", "rsa:1024", "-nodes", "-keyout", tmp_path / "weak.key", "-subj", "/CN=weak",
            "-out", csr)
    result = shared.daemon.cli("cert", "issue", "weak", "--csr", csr, "--out", tmp_path, check=False)
    assert result.returncode in (FAILED, REFUSED)
    assert not (tmp_path / "weak.pem").exists()


def test_list_and_revoke(shared):
    identity = shared.new_identity()
    shared.daemon.cli("cert", "revoke", identity.name)
    row = next(c for c in shared.daemon.json("cert", "list") if c["name"] == identity.name)
    assert row["revoked_at"]


# --- configuration ---

def test_reference_names_every_option():
    reference = run_cli("config", "reference").stdout
    for name in ("ingest_listen", "retry_interval", "max_attempts", "queue_driver", "drain_timeout"):
        assert name in reference


def test_config_file_environment_and_set(tmp_path):
    config = tmp_path / "sealpost.yaml"
    config.write_text("retry_interval: 5s\nmax_attempts: 7\n")

    def shown(*options, **env):
        return json.loads(run_cli("config", "show", "--json", "--config", config, *options, env=env).stdout)
    assert str(shown()["max_attempts"]) == "7"
    assert str(shown(SEALPOST_MAX_ATTEMPTS="8")["max_attempts"]) == "8"
    assert str(shown("--set", "max_attempts=9", SEALPOST_MAX_ATTEMPTS="8")["max_attempts"]) == "9"
    assert run_cli("config", "check", "--config", config).returncode == OK


def test_the_data_directory_may_stand_in_the_configuration(tmp_path):
    config, here, there = tmp_path / "sealpost.yaml", tmp_path / "here", tmp_path / "there"
    config.write_text(f"data: {here}\n")
    run_cli("init", "--config", config)
    assert (here / "ca/ca.pem").exists()
    run_cli("init", "--config", config, "--data", there)
    assert (there / "ca/ca.pem").exists(), "--data has the last word"
    (there / "sealpost.yaml").write_text("max_attempts: 7\n")
    shown = json.loads(run_cli("config", "show", "--json", "--set", f"data={there}").stdout)
    assert str(shown["max_attempts"]) == "7", "the file in the directory that --set names"


@pytest.mark.skipif(os.path.isdir("/var/lib/sealpost"), reason="here the default is another directory")
def test_a_data_directory_cannot_name_another(tmp_path):
    (tmp_path / "sealpost").mkdir()
    (tmp_path / "sealpost/sealpost.yaml").write_text(f"data: {tmp_path / 'there'}\n")
    result = run_cli("config", "show", env={"XDG_DATA_HOME": str(tmp_path)}, check=False)
    assert result.returncode == FAILED and "--data" in result.stderr and "there" in result.stderr


@pytest.mark.parametrize("text,named", [
    ("no_such_option: 1\n", "no_such_option"), ("max_attempts: many\n", "max_attempts"),
    ("max_attempts: 0\n", "max_attempts"), ("retry_interval: 5 parsecs\n", "retry_interval"),
    ("retry_policy: hopeful\n", "retry_policy"), ("max_attempts: 1\nmax_attempts: 2\n", "max_attempts"),
    ("max_attempts: [1\n", "sealpost.yaml")])
def test_config_errors(tmp_path, text, named):
    config = tmp_path / "sealpost.yaml"
    config.write_text(text)
    result = run_cli("config", "check", "--config", config, check=False)
    assert result.returncode in (FAILED, USAGE)
    assert named in result.stderr


def test_config_check_says_everything_that_is_wrong(tmp_path):
    config = tmp_path / "sealpost.yaml"
    config.write_text("""log_level: loud
nothing: {a: [1, 2], b: 3}
max_attempts: [1]
log_level: info
cert_days: 900
domains:
  -x: {rate: 1}
  a.example:
    rates: 5
    rate: many
  b.example: 7
  a.example:
retry_interval: 5s
""")
    words = ["config", "check", "--config", config, "--set", "cert_days_max=800"]
    result = run_cli(*words, check=False, env={"SEALPOST_MAX_ATTEMPTS": "-1", "SEALPOST_WHAT": "1"})
    assert result.returncode == FAILED
    expected = [":1: log_level", ":2: unknown option 'nothing'", ":3: max_attempts", ":4: log_level is given twice",
                ":7: a domain's name", ":9: unknown option 'rates'", ":10: rate", ":11: expected the options",
                "domain 'a.example' is given twice", "SEALPOST_MAX_ATTEMPTS", "SEALPOST_WHAT",
                "cert_days is 900, but cert_days_max is 800"]
    lines = result.stderr.splitlines()
    assert [(e, e in line) for e, line in zip(expected, lines)] == [(e, True) for e in expected]
    assert len(lines) == len(expected)
    answer = json.loads(run_cli(*words, "--json", check=False).stdout)
    assert answer["valid"] is False and len(answer["mistakes"]) == len(expected) - 2


def test_a_wrong_set_is_wrong_usage(tmp_path):
    for command in (["up"], ["init"], ["config", "check"], ["config", "show"]):
        for setting in ("nothing=1", "max_attempts=many", "max_attempts", "log_level=loud"):
            result = run_cli(*command, "--data", tmp_path / "d", "--set", setting, check=False)
            assert (result.returncode, "--set" in result.stderr) == (USAGE, True)
    assert not (tmp_path / "d").exists()
