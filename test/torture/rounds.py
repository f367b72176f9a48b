"""Rounds of a random test: bounded in count and time, repeatable from a seed, visible while they run."""
import os
import random
import sys
import time
from pathlib import Path


def say(line):
    """What is going on, on one line: into $SEALPOST_PROGRESS (scripts/run-tests shows it), else on a terminal."""
    if path := os.environ.get("SEALPOST_PROGRESS"):
        Path(path).write_text(line)
    elif sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


class Rounds:
    """Iterates over random sources. Each round's is made from the seed and the round's number alone, so that a round
    draws the same numbers again, however many came before it."""

    def __init__(self, name, count, seed, seconds, full):
        self.name, self.count, self.seed = name, count, seed
        self.full = full  # what a round waits for may take minutes
        self.deadline = time.monotonic() + seconds
        self.began = time.monotonic()
        self.done = 0

    def __iter__(self):
        while self.done < self.count and time.monotonic() < self.deadline:
            yield random.Random(f"{self.seed}/{self.done + 1}")
            self.done += 1
            self.show()

    def show(self, doing=""):
        share = self.done / max(1, self.count)
        bar = "#" * round(20 * share)
        say(f"{self.name} [{bar:<20}] {self.done}/{self.count}  seed {self.seed}  "
            f"{time.monotonic() - self.began:.0f} s  {doing}")

    def figures(self):
        return {"case": self.name, "seed": self.seed, "rounds": self.done,
                "seconds": round(time.monotonic() - self.began, 1)}
