"""A daemon whose disk, memory and power are in the hands of the test."""
import pytest

from faults import Faults


@pytest.fixture
def make_faults(tmp_path):
    """make_faults(daemon): faults for a daemon that is not started yet."""
    def make(daemon):
        faults = Faults(daemon.data, tmp_path / f"control-{daemon.directory.name}")
        daemon.env.update(faults.env)
        return faults
    return make


@pytest.fixture
def faulty(make_daemon, make_faults):
    """(a daemon not yet started, its faults)"""
    daemon = make_daemon()
    return daemon, make_faults(daemon)
