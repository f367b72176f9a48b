"""Every torture case: a function of (directory, rounds) that returns (figures, what does not hold)."""
from dataclasses import dataclass
from typing import Callable

import disk_cases
import up_cases


@dataclass(frozen=True)
class Case:
    run: Callable
    sampled: int  # rounds in `make test`
    full: int  # rounds in `make torture`

    @property
    def summary(self):
        return self.run.__doc__.strip()


CASES = {
    "kill": Case(up_cases.kill, 10, 300),
    "freeze": Case(up_cases.stand_still, 2, 60),
    "clock": Case(up_cases.clock, 5, 200),
    "power": Case(disk_cases.power, 5, 200),
    "power-control": Case(disk_cases.power_control, 1, 20),
    "disk": Case(disk_cases.disk, 4, 200),
}
