"""Three ledgers of one run: what was attempted, what was acknowledged, what is stored; and what they must agree on.

Every message has a text of its own, so that the store can be compared text by text, not only id by id: a message
that was taken twice has two ids, and a message that nobody sent has a text that nobody wrote.
"""
import http.client
import json
import socket
import threading
from dataclasses import dataclass, field

PAGE = 500
READERS = 4


@dataclass
class Attempt:
    """One message; it is sent again, under the same key, only when it has one."""
    text: str
    key: str | None = None

    @property
    def headers(self):
        return {"Idempotency-Key": self.key} if self.key else {}


@dataclass
class Comparison:
    attempted: int
    acknowledged: int
    stored: int
    lost: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    invented: list = field(default_factory=list)
    changed: list = field(default_factory=list)

    def broken(self):
        """What does not hold, as text; none when all is well."""
        wrong = {"acknowledged and not stored": self.lost, "stored twice": self.doubled,
                 "stored and never attempted": self.invented, "stored under another id or text": self.changed}
        found = [f"{len(v)} {what}, such as {v[0]}" for what, v in wrong.items() if v]
        return found if self.acknowledged else [*found, "nothing was acknowledged: this run shows nothing"]

    def figures(self):
        return {"attempted": self.attempted, "acknowledged": self.acknowledged, "stored": self.stored,
                "lost": len(self.lost), "doubled": len(self.doubled), "invented": len(self.invented),
                "changed": len(self.changed)}


class Ledger:
    """What was attempted and what was acknowledged. Threads: any."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()
        self.attempted = {}  # text: key or None
        self.acknowledged = {}  # text: message id
        self.changed = []

    def attempt(self, keyed):
        with self.lock:
            text = f"{self.name} {len(self.attempted) + 1}"
            self.attempted[text] = f"key {text}".replace(" ", "-") if keyed else None
            return Attempt(text, self.attempted[text])

    def acknowledge(self, attempt, message_id):
        """A key that is used again has to give the id it gave before."""
        with self.lock:
            if self.acknowledged.setdefault(attempt.text, message_id) != message_id:
                self.changed.append(attempt.text)

    def compare(self, stored):
        """stored: (message id, text) of each row of the store."""
        by_text = {}
        for message_id, text in stored:
            by_text.setdefault(text, []).append(message_id)
        result = Comparison(len(self.attempted), len(self.acknowledged), sum(map(len, by_text.values())))
        result.changed += self.changed
        result.doubled += [text for text, ids in by_text.items() if len(ids) > 1]
        result.invented += [text for text in by_text if text not in self.attempted]
        for text, message_id in self.acknowledged.items():
            if text not in by_text:
                result.lost.append(f"{text} ({message_id})")
            elif message_id not in by_text[text]:
                result.changed.append(text)
        return result


# --- the store, as an administrator sees it ---

class AdminConnection(http.client.HTTPConnection):
    """The daemon's admin socket."""

    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def get(self, path):
        self.request("GET", path)
        answer = self.getresponse()
        body = answer.read()
        assert answer.status == 200, f"GET {path}: {answer.status} {body!r}"
        return json.loads(body)


def delivered_ids(socket_path):
    """Of every row that is delivered, newest first; a row that is listed twice is there twice."""
    connection, ids, cursor = AdminConnection(socket_path), [], ""
    while True:
        page = connection.get(f"/admin/messages?status=delivered&limit={PAGE}{cursor}")
        ids += [m["message_id"] for m in page["messages"]]
        if not page.get("next_cursor"):
            connection.close()
            return ids
        cursor = f"&cursor={page['next_cursor']}"


def read_store(socket_path):
    """(message id, text) of each delivered message, opened by the main server."""
    ids, rows, failures = delivered_ids(socket_path), [], []

    def read(share):
        try:
            connection = AdminConnection(socket_path)
            for message_id in share:
                rows.append((message_id, connection.get(f"/admin/messages/{message_id}")["message_body"]))
            connection.close()
        except Exception as e:  # a thread's failure is the reader's
            failures.append(e)
    readers = [threading.Thread(target=read, args=(ids[i::READERS],)) for i in range(READERS)]
    for r in readers:
        r.start()
    for r in readers:
        r.join()
    if failures:
        raise failures[0]
    return rows
