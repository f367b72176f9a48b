"""The clients that people have: requests, curl, Node, Java, Go. What they send is accepted as they send it."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from client import NUMBER, curl
from test_ingest import message
from waiting import eventually

CLIENTS = Path(__file__).parent / "clients"
JSON = ("-H", "Content-Type: application/json")
LINES = ("-H", "Content-Type: application/x-ndjson")
BATCH = "/api/v1/messages/batch"


def url(site, path="/api/v1/messages"):
    return site.daemon.ready["ingest"] + path


def large_batch():
    """More than 1 MiB, so that curl asks before it sends it."""
    line = json.dumps({"sender_number": NUMBER, "message_body": "x" * 900, "metadata": {"k": "v" * 900}})
    return "\n".join([line] * 700).encode()


# --- Python ---

@pytest.fixture
def session(shared):
    requests = pytest.importorskip("requests")
    with requests.Session() as s:
        s.trust_env = False  # or a CA bundle of the environment comes before ours
        s.verify, s.cert = str(shared.identity.ca), (str(shared.identity.cert), str(shared.identity.key))
        yield s


def test_requests(session, shared):
    for i in range(3):
        answer = session.post(url(shared), json={"sender_number": NUMBER, "message_body": f"number {i}"})
        assert answer.status_code == 202
    where = answer.headers["Location"]
    eventually(lambda: session.get(url(shared, where)).json()["status"] == "delivered", "delivered")


def test_requests_in_chunks(session, shared):
    body = message(message_body="in chunks")
    pieces = (body[i:i + 7] for i in range(0, len(body), 7))
    answer = session.post(url(shared), data=pieces, headers={"Content-Type": "application/json"})
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert answer.status_code == 202


# --- curl ---

@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
class TestCurl:
    def test_post(self, shared, version):
        answer = curl(url(shared), shared.identity, version, *JSON, "--data-binary", "@-", input=message())
        assert answer.status == 202 and answer.json["status"] == "queued"

    def test_chunked_upload(self, shared, version):
        answer = curl(url(shared), shared.identity, version, *JSON, "-H", "Transfer-Encoding: chunked", "-X", "POST",
                      "-T", "-", input=message())
        assert answer.status == 202

    def test_large_batch_after_100_continue(self, shared, version):
        trace = shared.daemon.directory / f"trace{version}"
        answer = curl(url(shared, BATCH), shared.identity, version, *LINES, "-H", "Expect: 100-continue",
                      "--expect100-timeout", "30", "--trace-ascii", str(trace), "--data-binary", "@-",
                      input=large_batch())
        assert (answer.status, answer.json["accepted"]) == (202, 700)
        assert re.search(r"HTTP/[.\d]+ 100", trace.read_text(errors="replace"))

    def test_refused_before_the_upload(self, shared, version):
        answer = curl(url(shared), shared.identity, version, *JSON, "-H", "Expect: 100-continue", "--data-binary",
                      "@-", input=large_batch())
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")

    def test_refused_during_the_upload(self, shared, version):
        """The answer is heard although the client sends on."""
        answer = curl(url(shared), shared.identity, version, *JSON, "-H", "Expect:", "--data-binary", "@-",
                      input=large_batch())
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")

    def test_chunked_and_too_large(self, shared, version):
        answer = curl(url(shared), shared.identity, version, *JSON, "-H", "Transfer-Encoding: chunked", "-H",
                      "Expect:", "-X", "POST", "-T", "-", input=large_batch())
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")

    def test_several_on_one_connection(self, shared, version):
        count = 5
        result = subprocess.run(
            ["curl", "-sS", version, "--cacert", shared.identity.ca, "--cert", shared.identity.cert,
             "--key", shared.identity.key, *JSON, "-d", message(), "-w", "%{stderr}%{num_connects} %{http_code}\n",
             *[url(shared)] * count], capture_output=True, text=True, check=True)
        assert result.stderr.splitlines() == ["1 202"] + ["0 202"] * (count - 1)


# --- others ---

@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_node(shared):
    who = shared.identity
    result = subprocess.run(["node", CLIENTS / "post.mjs", shared.daemon.ready["ingest"], who.cert, who.key, who.ca],
                            capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)
    assert [a["status"] for a in answers] == [202] * 6
    ids = {a["message_id"] for a in answers}
    assert len(ids) == 6
    eventually(lambda: ids <= shared.daemon.delivered(), "delivered")


@pytest.mark.skipif(not shutil.which("javac"), reason="needs a JDK")
def test_java(shared, tmp_path):
    who, store = shared.identity, tmp_path / "client.p12"
    subprocess.run(["openssl", "pkcs12", "-export", "-in", who.cert, "-inkey", who.key, "-out", store,
                    "-passout", "pass:changeit"], check=True)
    result = subprocess.run(["java", CLIENTS / "Post.java", shared.daemon.ready["ingest"], store, "changeit", who.ca],
                            capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["HTTP_1_1 202"] * 2 + ["HTTP_2 202"] * 2


@pytest.mark.skipif(not shutil.which("go"), reason="needs Go")
def test_go(shared, tmp_path):
    who = shared.identity
    result = subprocess.run(["go", "run", CLIENTS / "post.go", shared.daemon.ready["ingest"], who.cert, who.key, who.ca],
                            capture_output=True, text=True, timeout=240,
                            env={**os.environ, "GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["HTTP/1.1 202"] * 3 + ["HTTP/2.0 202"] * 3
