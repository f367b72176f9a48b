"""A daemon whose disk, memory and power are in the hands of the test."""
import pytest

from faults import Faults


@pytest.fixture
def faulty(make_daemon, tmp_path):
    """(daemon not yet started, its faults)"""
    daemon = make_daemon()
    faults = Faults(daemon.data, tmp_path / "control")
    daemon.env.update(faults.env)
    return daemon, faults
