"""Clients that do not give up: they post through restarts, outages and cuts, and write down what became of it.

Half of the connections use idempotency keys and send a message again, under its key, until it is answered; the others
send each message once, whatever comes of it, because nobody could tell whether it was taken.
"""
import http.client
import threading
import time
from collections import Counter

from client import Client

PAUSE_S = 0.02  # before a connection is tried again, or after a 503
TIMEOUT_S = 20


class LedgerLoad:
    """Runs until stopped. where: a function with the address to connect to, which may raise while there is none.
    keys: whether half of the connections use idempotency keys."""

    def __init__(self, ledger, where, identity, connections=8, per_second=400, keys=True):
        self.ledger = ledger
        self.where = where
        self.identity = identity
        self.connections = connections
        self.pace(per_second)
        self.statuses = Counter()
        self.broken_connections = 0
        self.trouble = None  # the last that broke a connection, or was no 202
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(keys and i % 2 == 0,), daemon=True)
                        for i in range(connections)]
        for t in self.threads:
            t.start()

    def pace(self, per_second):
        """How many messages are sent from now on, at most."""
        self.gap_s = self.connections / per_second

    @property
    def acknowledged(self):
        return len(self.ledger.acknowledged)

    def _run(self, keyed):
        attempt = None
        while not self.stopping.is_set():
            try:
                with Client(self.where(), self.identity, timeout=TIMEOUT_S) as client:
                    while not self.stopping.is_set():
                        attempt = attempt or self.ledger.attempt(keyed)
                        attempt = self._post(client, attempt)
            except (OSError, http.client.HTTPException, KeyError) as e:
                self.broken_connections += 1
                self.trouble = repr(e)
                attempt = attempt if keyed else None
                self.stopping.wait(PAUSE_S)

    def _post(self, client, attempt):
        """What is left to be sent: the same attempt, or None."""
        began = time.monotonic()
        answer = client.post(attempt.text, headers=attempt.headers)
        self.statuses[answer.status] += 1
        if answer.status == 202:
            self.ledger.acknowledge(attempt, answer.json["message_id"])
            self.stopping.wait(max(0.0, began + self.gap_s - time.monotonic()))
            return None
        self.trouble = f"{answer.status} {answer.body!r}"
        self.stopping.wait(PAUSE_S)
        return attempt if attempt.key else None

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()

    def broken(self):
        """Whatever is wrong with a request, it is not the request: these are valid and allowed."""
        odd = {status: n for status, n in self.statuses.items() if status not in (202, 503)}
        return [f"answers other than 202 and 503: {odd}"] if odd else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
