"""`sealpost send` against a server that misbehaves as told: what it tries again, under which key, and what it says."""
import http.server
import json
import ssl
import subprocess
import threading

import pytest

from daemon import run_cli

OK, FAILED, USAGE, REFUSED, UNAVAILABLE = 0, 1, 2, 4, 5
NUMBER = "+4915112345678"
TEXT = "a text that no error may repeat"


def problem(status, code, **more):
    return status, {"title": f"title of {code}", "status": status, "code": code, **more}, {}


def busy(status=503, **headers):
    return (*problem(status, "busy")[:2], {"Retry-After": "1", **headers})


ACCEPTED = (202, {"message_id": "the-id", "status": "queued"}, {})
NO_ANSWER = None


class Stub:
    """Answers the script in order, its last entry for good; keeps what was asked."""

    def __init__(self, directory):
        self.script, self.requests = [ACCEPTED], []
        self.cert, self.key = directory / "stub.pem", directory / "stub.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", self.key, "-out", self.cert, "-subj", "/CN=stub", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stub.requests.append((self.path, dict(self.headers), body))
                self.answer(stub.script.pop(0) if len(stub.script) > 1 else stub.script[0])

            def answer(self, entry):
                if entry is NO_ANSWER:
                    self.close_connection = True
                    return
                status, body, headers = entry
                raw = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.cert, self.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def send(self, *words, **kw):
        where = ["--url", f"https://127.0.0.1:{self.server.server_port}", "--cert", self.cert, "--key", self.key,
                 "--ca", self.cert]
        return run_cli("send", *where, *words, check=False, **kw)

    def keys(self):
        return [headers["Idempotency-Key"] for _, headers, _ in self.requests]


@pytest.fixture
def stub(tmp_path):
    stub = Stub(tmp_path)
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.mark.parametrize("trouble", [busy(503), busy(429), NO_ANSWER], ids=["503", "429", "no answer"])
def test_what_may_work_later_is_sent_again_under_the_same_key(stub, trouble):
    stub.script = [trouble, ACCEPTED]
    result = stub.send(NUMBER, TEXT)
    assert (result.returncode, result.stdout) == (OK, "the-id\n")
    assert len(stub.requests) == 2 and len(set(stub.keys())) == 1
    assert len({body for _, _, body in stub.requests}) == 1


def test_every_message_has_a_key_of_its_own(stub):
    for _ in range(2):
        stub.send(NUMBER, TEXT)
    assert len(set(stub.keys())) == 2


def test_attempts_are_bounded(stub):
    stub.script = [busy()]
    result = stub.send("--retries", "1", NUMBER, TEXT)
    assert result.returncode == UNAVAILABLE
    assert len(stub.requests) == 2


def test_a_long_retry_after_is_told_and_not_waited_for(stub):
    stub.script = [busy(429, **{"Retry-After": "3600"})]
    result = stub.send(NUMBER, TEXT)
    assert result.returncode == UNAVAILABLE and "3600 s" in result.stderr
    assert len(stub.requests) == 1


@pytest.mark.parametrize("status, code", [(400, FAILED), (401, REFUSED), (403, REFUSED), (422, FAILED), (500, FAILED)])
def test_what_stays_wrong_is_sent_once(stub, status, code):
    stub.script = [problem(status, "some_code", errors=[
        {"pointer": "/message_body", "code": "field_code", "detail": "what is wrong\x1b[2J"}])]
    result = stub.send(NUMBER, TEXT)
    assert result.returncode == code and len(stub.requests) == 1
    for part in ("title of some_code", "(some_code, ", "/message_body: what is wrong\\x1b[2J (field_code)"):
        assert part in result.stderr
    assert TEXT not in result.stderr and NUMBER not in result.stderr


def file_of(tmp_path, count):
    path = tmp_path / "messages.ndjson"
    lines = [json.dumps({"sender_number": NUMBER, "message_body": TEXT}) for _ in range(count)]
    path.write_text("\n".join(lines[:2] + ["", "  "] + lines[2:]) + "\n")
    return path


def test_a_batch_names_the_lines_that_failed(stub, tmp_path):
    refused = problem(400, "validation_error")[1]
    stub.script = [(207, {"accepted": 2, "rejected": 1, "results": [
        {"index": 0, "message_id": "a"}, {"index": 1, "message_id": "b"}, {"index": 2, "problem": refused}]}, {})]
    result = stub.send("--file", file_of(tmp_path, 3), "--batch", "10", "--ids")
    assert result.returncode == FAILED
    assert result.stdout == "1\ta\n2\tb\n2 accepted, 1 failed\n"
    assert "line 5: title of validation_error" in result.stderr
    path, headers, body = stub.requests[0]
    assert (path, headers["Content-Type"]) == ("/api/v1/messages/batch", "application/x-ndjson")
    assert len(body.splitlines()) == 3


def test_a_refused_certificate_ends_a_file(stub, tmp_path):
    stub.script = [problem(403, "forbidden")]
    result = stub.send("--file", file_of(tmp_path, 4), "--parallel", "1", "--json")
    assert result.returncode == REFUSED and len(stub.requests) == 1
    summary = json.loads(result.stdout)
    assert (summary["accepted"], summary["failed"], summary["unsent_from_line"]) == (0, 1, 2)
    assert summary["failures"] == [{"line": 1, "status": 403, "code": "forbidden"}]


def test_a_resumed_file_repeats_its_keys(stub, tmp_path):
    path = file_of(tmp_path, 3)
    for _ in range(2):
        assert stub.send("--file", path, "--resume-key", "monday", "--parallel", "1").returncode == OK
    assert stub.keys() == ["monday-1", "monday-2", "monday-5"] * 2


@pytest.mark.parametrize("words", [
    ("12345", TEXT), (NUMBER, ""), (NUMBER, "x" * 1001), (NUMBER,), (NUMBER, TEXT, "more"),
    (NUMBER, TEXT, "--batch", "5"), ("--file", "f", NUMBER, TEXT), (NUMBER, TEXT, "--resume-key", "a b")])
def test_usage_errors_send_nothing(stub, words):
    result = stub.send(*words)
    assert result.returncode == USAGE and stub.requests == []
    assert TEXT not in result.stderr
