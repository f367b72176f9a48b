"""POST /api/v1/messages and its neighbours, case by case against the HTTP contract."""
import json
import re

import pytest

from client import NUMBER
from waiting import eventually

pytestmark = pytest.mark.everywhere

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"


def message(**members):
    return json.dumps({"sender_number": NUMBER, "message_body": "hello", **members}).encode()


def check_problem(answer, status, code):
    """The answer is a problem as RFC 9457 and the contract describe it; returns it."""
    assert answer.status == status
    assert answer.header("content-type").split(";")[0] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == f"urn:sealpost:problem:{code.replace('_', '-')}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["request_id"] == answer.header("x-request-id")
    return problem


# --- what a message may be ---

@pytest.mark.parametrize("number", ["+10", "+4915112345678", "+123456789012345"])
def test_good_numbers(shared, number):
    with shared.client() as client:
        assert client.post(number=number).status == 202


GOOD_TEXTS = {
    "one letter": "x", "a space": " ", "a line break": "\n", "1000 letters": "a" * 1000,
    "1000 emoji": "\U0001F680" * 1000, "joined emoji": FAMILY * 200, "byte order mark": "\uFEFFbom",
    "quotes": "quote \" backslash \\ tab \t", "controls": "\u0001\u001f\u007f", "right to left": "\u202Ertl",
    "combining": "e\u0301",
}


@pytest.mark.parametrize("text", GOOD_TEXTS.values(), ids=GOOD_TEXTS)
def test_good_texts_are_kept_byte_for_byte(shared, text):
    with shared.client() as client:
        answer = client.post(text)
    assert answer.status == 202
    message_id = answer.json["message_id"]
    eventually(lambda: message_id in shared.daemon.delivered(), "delivered")
    assert shared.daemon.json("messages", "show", message_id)["message_body"] == text


BAD_NUMBERS = ["", "+", "+1", "4915112345678", "+0151123456", "+1234567890123456", "+49 151", "+49a", " +4915112345678",
               "+4915112345678\n", "+４９１５１", "00491511234567"]

BAD_MESSAGES = {
    "number missing": (b'{"message_body":"x"}', "/sender_number", "required"),
    "number not a string": (message(sender_number=4915112345678), "/sender_number", "wrong_type"),
    "body missing": (b'{"sender_number":"+4915112345678"}', "/message_body", "required"),
    "body null": (message(message_body=None), "/message_body", "wrong_type"),
    "body empty": (message(message_body=""), "/message_body", "empty"),
    "1001 code points": (message(message_body="a" * 1001), "/message_body", "too_long"),
    "1001 emoji": (message(message_body="\U0001F680" * 1001), "/message_body", "too_long"),
    "NUL in the body": (message(message_body="a\0b"), "/message_body", "nul"),
    "metadata an array": (message(metadata=[1]), "/metadata", "wrong_type"),
    "metadata too large": (message(metadata={"k": "v" * 4096}), "/metadata", "too_long"),
    "unknown member": (message(colour="red"), "/colour", "unknown_member"),
    "duplicate member": (b'{"sender_number":"+4915112345678","message_body":"a","message_body":"b"}',
                         "/message_body", "duplicate_member"),
    "trailing garbage": (message() + b"x", "", "trailing_data"),
    "two documents": (message() + message(), "", "trailing_data"),
    "an array": (b"[]", "", "wrong_type"),
    "cut short": (message()[:-1], "", "malformed_json"),
    "empty": (b"", "", "malformed_json"),
    "single quotes": (b"{'sender_number':'+4915112345678','message_body':'x'}", "", "malformed_json"),
    "comment": (b"/**/" + message(), "", "malformed_json"),
    "trailing comma": (b'{"sender_number":"+4915112345678","message_body":"x",}', "", "malformed_json"),
}

BAD_UTF8 = {
    "lone continuation": b"\x80", "overlong slash": b"\xc0\xaf", "surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80", "cut sequence": b"\xe2\x82", "latin-1": b"Gr\xfc\xdfe",
}


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=ascii)
def test_bad_numbers(shared, number):
    with shared.client() as client:
        problem = check_problem(client.post(number=number), 400, "validation_error")
    assert [e["pointer"] for e in problem["errors"]] == ["/sender_number"]
    if len(number) > 5:
        assert number not in json.dumps(problem, ensure_ascii=False), "a problem repeats no phone number"


@pytest.mark.parametrize("body,pointer,code", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_bad_messages(shared, body, pointer, code):
    with shared.client() as client:
        problem = check_problem(client.post_raw(body), 400, "validation_error")
        assert (pointer, code) in [(e["pointer"], e["code"]) for e in problem["errors"]]
        assert client.post().status == 202, "the connection lives on"


@pytest.mark.parametrize("text", BAD_UTF8.values(), ids=BAD_UTF8)
def test_bad_utf8(shared, text):
    with shared.client() as client:
        body = b'{"sender_number":"+4915112345678","message_body":"' + text + b'"}'
        problem = check_problem(client.post_raw(body), 400, "validation_error")
    assert problem["errors"][0]["code"] in ("invalid_utf8", "malformed_json")


def test_lone_surrogate_escape(shared):
    with shared.client() as client:
        body = b'{"sender_number":"+4915112345678","message_body":"\\ud800"}'
        check_problem(client.post_raw(body), 400, "validation_error")


def test_several_problems_at_once(shared):
    with shared.client() as client:
        problem = check_problem(client.post("", number="12"), 400, "validation_error")
    assert {e["pointer"] for e in problem["errors"]} == {"/sender_number", "/message_body"}


def test_refused_messages_leave_nothing_behind(site):
    with site.client() as client:
        for body, *_ in BAD_MESSAGES.values():
            client.post_raw(body)
    stats = site.daemon.json("queue", "stats")
    assert (stats["queued"], stats["processing"], stats["failed"]) == (0, 0, 0)
    assert site.daemon.messages() == []


# --- size and media type ---

def test_largest_body_and_one_byte_more(shared):
    filler = 64 * 1024 - len(message())
    with shared.client() as client:
        assert client.post_raw(message() + b" " * filler).status == 202
        check_problem(client.post_raw(message() + b" " * (filler + 1)), 413, "payload_too_large")


@pytest.mark.parametrize("media_type,status", [
    ("application/json", 202), ("application/json; charset=utf-8", 202), ("Application/JSON", 202),
    ("application/json;charset=\"UTF-8\"", 202), ("application/json; charset=latin1", 415), ("text/plain", 415),
    ("application/x-www-form-urlencoded", 415), ("application/jsonx", 415), ("", 415)])
def test_media_types(shared, media_type, status):
    with shared.client() as client:
        answer = client.post_raw(message(), {"Content-Type": media_type})
    assert answer.status == status
    if status == 415:
        check_problem(answer, 415, "unsupported_media_type")


# --- who may ---

def test_without_a_certificate(shared):
    with shared.anonymous() as client:
        check_problem(client.post(), 401, "authentication_required")
        for path in ("/livez", "/readyz", "/api/v1/health"):
            assert client.get(path).status == 200


def test_health(shared):
    with shared.client() as client:
        answer = client.get("/api/v1/health")
    assert answer.status == 200
    health = answer.json
    assert health["status"] == "healthy"
    assert {"version", "uptime_seconds", "timestamp", "checks"} <= set(health)
    assert {"queue", "certificate", "disk"} <= set(health["checks"])


# --- routes and methods ---

def test_unknown_path(shared):
    with shared.client() as client:
        check_problem(client.get("/api/v1/nothing"), 404, "not_found")


@pytest.mark.parametrize("method,path,allowed", [
    ("DELETE", "/api/v1/messages", {"POST"}), ("GET", "/api/v1/messages", {"POST"}),
    ("PUT", "/api/v1/messages", {"POST"}), ("POST", "/livez", {"GET", "HEAD"}),
    ("POST", "/api/v1/health", {"GET", "HEAD"})])
def test_wrong_method(shared, method, path, allowed):
    with shared.client() as client:
        answer = client.request(method, path)
    check_problem(answer, 405, "method_not_allowed")
    named = {m.strip() for m in answer.header("allow").split(",")}
    assert allowed <= named and method not in named


def test_head_is_get_without_a_body(shared):
    with shared.client() as client:
        get, head = client.get("/livez"), client.request("HEAD", "/livez")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-type") == get.header("content-type")


# --- request ids ---

@pytest.mark.parametrize("sent,kept", [("abc-123_XYZ.7", True), ("a" * 64, True), ("a" * 65, False),
                                       ("with space", False), ("quote\"", False)])
def test_request_id(shared, sent, kept):
    with shared.client() as client:
        answer = client.get("/livez", **{"X-Request-Id": sent})
    got = answer.header("x-request-id")
    assert got and (got == sent) == kept


def test_request_ids_differ(shared):
    with shared.client() as client:
        ids = [client.get("/livez").header("x-request-id") for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,64}", i) for i in ids)
