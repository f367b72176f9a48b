#!/usr/bin/python3
"""One torture case by hand: random faults under load, then the ledgers are compared.

    SEALPOST_BIN=build/sealpost test/torture/torture.py CASE [--rounds N] [--seed S] [--seconds T] [--json]

Prints what was done and what came of it. Exit code 0: everything holds, 1: something does not, 2: usage,
77: cannot be run here. With the same seed a round draws the same numbers again. `make torture` runs every case.
"""
import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from cases import CASES  # noqa: E402
from disks import Unable  # noqa: E402
from rounds import Rounds  # noqa: E402

CANNOT_RUN = 77


def run(name, rounds, directory):
    """(figures, what does not hold)"""
    figures, broken = CASES[name].run(Path(directory), rounds)
    return rounds.figures() | figures, broken


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES, metavar="CASE", help="; ".join(
        f"{name}: {case.summary}" for name, case in CASES.items()))
    parser.add_argument("--rounds", type=int, help="how many; default: as `make torture`")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"), help="default: a random one")
    parser.add_argument("--seconds", type=float, default=7200, help="no new round is begun after this time")
    parser.add_argument("--keep", action="store_true", help="keep data and log where something does not hold")
    return parser.parse_args()


def main():
    args = parse()
    rounds = Rounds(args.case, args.rounds or CASES[args.case].full, args.seed, args.seconds, full=True)
    directory = tempfile.TemporaryDirectory(prefix="sealpost-torture-")
    try:
        figures, broken = run(args.case, rounds, directory.name)
    except Unable as e:
        print(f"torture: {args.case}: cannot be run here: {e}", file=sys.stderr)
        return CANNOT_RUN
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(json.dumps(figures, indent=1))
    for line in broken:
        print(f"does not hold: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
