"""Nothing outside RAM holds plaintext: the data directory is searched for a message in many disguises."""
import base64
import json

import pytest

from daemon import Site
from waiting import eventually

pytestmark = pytest.mark.everywhere

TEXT = "Zanzibar-Quartz-7781 is what nobody may read"
NUMBER = "+4917650001234"


def disguises(text):
    """The text as an attacker with grep would look for it."""
    raw = text.encode()
    yield "as it is", raw
    yield "UTF-16LE", text.encode("utf-16-le")
    yield "UTF-16BE", text.encode("utf-16-be")
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "reversed", raw[::-1]
    for shift in range(3):  # base64 looks different for each position within three bytes
        core = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0:-4]
        yield f"base64 at {shift}", core
        yield f"base64url at {shift}", core.translate(bytes.maketrans(b"+/", b"-_"))


def search(directory, needles):
    found = []
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes()
        found += [f"{path.name}: {what}" for what, needle in needles if needle in content]
    return found


def test_the_search_itself_finds_what_is_there(tmp_path):
    for name, needle in disguises(TEXT):
        (tmp_path / "file").write_bytes(b"\1\2" + needle + b"\3")
        assert search(tmp_path, list(disguises(TEXT))), name
    (tmp_path / "file").write_bytes(base64.b64encode(b"xy" + TEXT.encode() + b"z"))
    assert search(tmp_path, list(disguises(TEXT)))


def test_no_file_holds_text_or_number(site):
    daemon = site.daemon
    needles = [n for text in (TEXT, NUMBER, NUMBER[1:]) for n in disguises(text)]
    daemon.cli("queue", "pause", "delivery")
    with site.client() as client:
        ids = [client.post(TEXT, NUMBER, metadata={"note": TEXT}).json["message_id"] for _ in range(20)]
        # Refused ones must not be written down either, nor echoed.
        refused = client.post(TEXT + "x" * 1000, NUMBER)
        assert refused.status == 400 and TEXT.encode() not in refused.body
        refused = client.post_raw(json.dumps({"sender_number": NUMBER, "message_body": TEXT, TEXT: 1}).encode())
        assert refused.status == 400 and TEXT.encode() not in refused.body
    assert search(daemon.directory, needles) == [], "while the messages are queued"

    daemon.cli("queue", "resume", "delivery")
    eventually(lambda: set(ids) <= daemon.delivered(), "all are delivered")
    assert search(daemon.directory, needles) == [], "once the messages are stored"

    assert daemon.json("messages", "show", ids[0])["message_body"] == TEXT
    daemon.stop()
    assert search(daemon.directory, needles) == [], "after the end"


def test_logs_at_debug_level_hold_nothing_either(make_daemon):
    site = Site(make_daemon(settings={"log_level": "debug", "access_log": "true"}).start())
    with site.client() as client:
        client.post(TEXT, NUMBER)
        client.post("", NUMBER)
    site.daemon.stop()
    log = site.daemon.log()
    assert TEXT not in log and NUMBER[1:] not in log
