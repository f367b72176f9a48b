"""One data directory, one daemon. (test/torture has the kills.)"""
import pytest

pytestmark = pytest.mark.everywhere


def test_a_second_daemon_on_the_same_data_is_refused(site, make_daemon):
    for running, other in zip(site.daemon.roles, make_daemon().roles):
        other.data = running.data
        other.spawn()
        assert other.wait() == 1
        assert str(running.data) in other.log()
