"""Waiting for a condition, never for a time."""
import time


class NeverHappened(AssertionError):
    pass


def eventually(condition, what, timeout=60.0, interval=0.02):
    """The first true value of condition(); what did not happen in time is the failure's text."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise NeverHappened(f"not within {timeout:g} s: {what}")
        time.sleep(interval)
