"""The queue on a Redis server: what a daemon does with it, and what it says when the server is not as it has to be."""
import pytest

from daemon import Site
from waiting import eventually


@pytest.fixture
def make_site(make_daemon):
    """make_site(redis, **settings): a running daemon whose queue is there."""
    def make(redis, **settings):
        return Site(make_daemon(settings=redis.options(**settings), env=redis.env).start())
    return make


def deliver_some(site, count=20):
    """Posts and waits until all are delivered, once."""
    with site.client() as client:
        ids = {client.post(f"message {i}").json["message_id"] for i in range(count)}
    eventually(lambda: ids <= site.daemon.delivered(), "all delivered")
    return ids


@pytest.mark.parametrize("how", [{}, {"password": "swordfish"}, {"tls": "on"}, {"tls": "mutual", "password": "swordfish"}],
                         ids=["plain", "password", "tls", "client certificate"])
def test_delivers_through_redis(make_redis, make_site, how):
    redis = make_redis(**how)
    site = make_site(redis, redis_partitions=3)
    deliver_some(site)
    assert redis.command("DBSIZE") > 0
