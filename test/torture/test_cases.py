"""Every case of cases.py: sampled in `make test`, in full by `make torture`; torture.py runs one alone, and longer."""
import os
import random

import pytest

from cases import CASES
from disks import Unable
from faults import FULL
from rounds import Rounds

# Another one each time; $SEALPOST_SEED repeats a run.
SEED = int(os.environ.get("SEALPOST_SEED") or random.SystemRandom().randrange(1 << 24))
# No new round is begun after this time.
SECONDS = 3600 if FULL else 90


def summary(figures):
    return ", ".join(f"{name} {value}" for name, value in figures.items())


@pytest.mark.timeout(SECONDS + 900)  # the last round may wait for minutes, until all is settled
@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path, record_property):
    case = CASES[name]
    rounds = Rounds(name, case.full if FULL else case.sampled, SEED, SECONDS, FULL)
    try:
        figures, broken = case.run(tmp_path, rounds)
    except Unable as e:
        pytest.skip(str(e))
    record_property("figures", summary(rounds.figures() | figures))
    assert broken == [], f"repeat with: test/torture/torture.py {name} --rounds {rounds.done} --seed {SEED}"
