"""Every torture case: a function of (directory, rounds) that returns (figures, what does not hold)."""
from dataclasses import dataclass
from typing import Callable

import disk_cases
import role_cases
import up_cases


@dataclass(frozen=True)
class Case:
    run: Callable
    sampled: int  # rounds in `make test`
    full: int  # rounds in `make torture`

    @property
    def summary(self):
        return self.run.__doc__.splitlines()[0]


CASES = {
    "kill": Case(up_cases.kill, 8, 300),
    "freeze": Case(up_cases.stand_still, 1, 60),
    "clock": Case(up_cases.clock, 3, 200),
    "power": Case(disk_cases.power, 4, 200),
    "power-control": Case(disk_cases.power_control, 1, 20),
    "disk": Case(disk_cases.disk, 3, 200),
    "roles": Case(role_cases.kill_roles, 4, 300),
    "roles-freeze": Case(role_cases.freeze_roles, 1, 60),
    "outage": Case(role_cases.outage, 1, 1),
    "network": Case(role_cases.network, 2, 100),
    "redis": Case(role_cases.redis_faults, 4, 200),
    "spool": Case(role_cases.spool, 2, 100),
    "failover": Case(role_cases.failover, 1, 30),
}
