"""One data directory, one daemon. (test/torture has the kills.)"""


def test_a_second_daemon_on_the_same_data_is_refused(site, make_daemon):
    other = make_daemon()
    other.data = site.daemon.data
    other.spawn()
    assert other.wait() == 1
    assert str(site.daemon.data) in other.log()
