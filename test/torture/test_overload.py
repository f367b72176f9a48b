"""overload.py as a part of full torture."""
import pytest

import overload
from faults import FULL


@pytest.mark.skipif(not FULL, reason="full torture only: it measures, and takes minutes")
@pytest.mark.skipif(not overload.can_run(), reason="needs root and cgroup v1")
@pytest.mark.timeout(900)
def test_five_times_too_much():
    figures = overload.run(overload.MEMORY_MIB, overload.CPU_PERCENT, overload.SECONDS)
    print(figures)
    assert overload.verdict(figures, overload.MEMORY_MIB) == []
