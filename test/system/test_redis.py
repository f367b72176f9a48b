"""The queue on a Redis server: what a daemon does with it, and what it says when the server is not as it has to be."""
import pytest

from client import Load
from daemon import Site
from redis import RedisError, Sentinel
from waiting import eventually

# As doc/operations.md has it.
ACL = ("on", ">swordfish", "~sealpost:*", "+@read", "+@write", "-@dangerous", "+evalsha", "+script|load", "+time", "+wait",
       "+select", "+info", "+config|get")


@pytest.fixture
def make_site(make_daemon):
    """make_site(redis, **settings): a daemon whose queue is there; started, unless start=False."""
    def make(redis, start=True, env=None, **settings):
        daemon = make_daemon(settings=redis.options(**settings), env=redis.env | (env or {}))
        return Site(daemon.start() if start else daemon)
    return make


def deliver_some(site, count=20):
    """Posts and waits until all are delivered, once."""
    with site.client() as client:
        ids = {wait_accepted(client, f"message {i}") for i in range(count)}  # a slow disk may take longer than redis_timeout
    eventually(lambda: ids <= site.daemon.delivered(), "all delivered")
    return ids


def says(site, sentence):
    """Until the log gives the reason why the queue does not work."""
    eventually(lambda: sentence in site.daemon.log(), f"'{sentence}' in the log")


def wait_refused(client, status=503):
    eventually(lambda: client.post("try").status == status, f"answered {status}")


def wait_accepted(client, text="try"):
    return eventually(lambda: (r := client.post(text)).status == 202 and r.json["message_id"], "accepted", timeout=120)


@pytest.mark.parametrize("how", [{}, {"password": "swordfish"}, {"tls": "on"}, {"tls": "mutual", "password": "swordfish"}],
                         ids=["plain", "password", "tls", "client certificate"])
def test_delivers_through_redis(make_redis, make_site, how):
    redis = make_redis(**how)
    site = make_site(redis, redis_partitions=3)
    deliver_some(site)
    assert redis.command("DBSIZE") > 0


def test_delivers_over_a_unix_socket(make_redis, make_site):
    redis = make_redis()
    deliver_some(make_site(redis, redis_url=f"unix://{redis.socket}?db=3"))
    assert "db3" in redis.info("keyspace")


@pytest.mark.parametrize("key, value, wanted", [
    ("appendonly", "no", "yes"), ("appendfsync", "everysec", "always"), ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ("no-appendfsync-on-rewrite", "yes", "no")])
def test_settings_that_break_the_promise(make_redis, make_site, key, value, wanted):
    redis = make_redis(settings={key: value})
    site = make_site(redis, start=False)
    site.daemon.spawn()
    says(site, f"set `{key} {wanted}`")
    assert not site.daemon.proxy.ready_file.exists()
    redis.config(key, wanted)
    site.daemon.wait_ready()
    deliver_some(site, 3)


def test_a_smaller_promise(make_redis, make_site):
    site = make_site(make_redis(settings={"appendfsync": "everysec"}), durability="everysec")
    deliver_some(site, 3)


def test_wrong_password(make_redis, make_site):
    redis = make_redis(password="swordfish")
    site = make_site(redis, start=False, env={"SEALPOST_REDIS_PASSWORD": "sesame"})
    site.daemon.spawn()
    says(site, "see redis_user and redis_password")
    assert "sesame" not in site.daemon.log()


def test_rights_that_suffice(make_redis, make_site):
    redis = make_redis()
    redis.command("ACL", "SETUSER", "sealpost", *ACL)
    env = {"SEALPOST_REDIS_PASSWORD": "swordfish"}
    site = make_site(redis, redis_user="sealpost", redis_partitions=2, env=env)
    deliver_some(site, 3)
    site.daemon.stop()
    # Without CONFIG, the operator says that it was verified.
    redis.command("ACL", "SETUSER", "sealpost", "-config|get")
    site = make_site(redis, start=False, redis_user="sealpost", redis_partitions=2, env=env)
    site.daemon.spawn()
    says(site, "redis_settings: trusted")
    site.daemon.kill()
    deliver_some(make_site(redis, redis_user="sealpost", redis_partitions=2, redis_settings="trusted", env=env), 3)


def make_full(redis):
    redis.config("maxmemory", "1")


def make_roomy(redis):
    redis.config("maxmemory", "0")


def fail_to_save(redis):
    (redis.directory / "dump.rdb").mkdir()
    redis.config("save", "1 1")
    save(redis, "err")


def save_again(redis):
    (redis.directory / "dump.rdb").rmdir()
    save(redis, "ok")


def save(redis, outcome):
    """Until a save ends so; the server begins some by itself, and only one at a time."""
    def saved():
        try:
            redis.command("BGSAVE")
        except RedisError as e:
            assert "in progress" in str(e)
        return redis.info("persistence")["rdb_last_bgsave_status"] == outcome
    eventually(saved, f"a save that ends with {outcome}")


def make_replica(redis):
    redis.command("REPLICAOF", "127.0.0.1", "1")


def make_master(redis):
    redis.command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("spoil, repair, sentence", [
    (make_full, make_roomy, "(OOM)"),
    (fail_to_save, save_again, "(MISCONF)"),
    (make_replica, make_master, "(READONLY)"),
    (lambda r: r.stop(), lambda r: r.start(), "Connection refused"),
    (lambda r: r.pause(), lambda r: r.resume(), "Connection timed out"),
], ids=["full", "cannot save", "replica", "stopped", "frozen"])
def test_refuses_and_recovers(make_redis, make_site, spoil, repair, sentence):
    redis = make_redis()
    site = make_site(redis, redis_timeout="500ms")
    before = deliver_some(site, 3)
    spoil(redis)
    with site.client() as client:
        wait_refused(client)
        says(site, sentence)
        repair(redis)
        after = wait_accepted(client)
    eventually(lambda: before | {after} <= site.daemon.delivered(), "what was accepted is delivered")


def test_nobody_notices_lost_scripts_and_connections(make_redis, make_site):
    redis = make_redis()
    site = make_site(redis, redis_timeout="20s")
    load = Load(site.daemon.address(), site.identity, connections=4)
    for i in range(20):
        count = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > count + 10, "progress")
        redis.command(*(("SCRIPT", "FLUSH") if i % 2 else ("CLIENT", "KILL", "TYPE", "normal")))
    load.stopping.set()
    acknowledged = set(load.join())
    assert (len(acknowledged), load.refused) == (len(load.acknowledged), [])
    eventually(lambda: acknowledged <= site.daemon.delivered(), "all delivered, once")


def connections(site, result):
    return site.daemon.proxy.metrics().get(f'sealpost_redis_connections_total{{result="{result}"}}', 0)


def test_killed_under_load(make_redis, make_site):
    redis = make_redis()
    site = make_site(redis, redis_timeout="1s")
    load = Load(site.daemon.address(), site.identity, connections=8)
    for _ in range(3):
        count = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > count + 50, "progress")
        failed = connections(site, "failed")
        redis.kill()
        eventually(lambda: connections(site, "failed") > failed, "it is tried again in vain")
        redis.start()
    load.stopping.set()
    acknowledged = set(load.join())
    eventually(lambda: acknowledged <= site.daemon.delivered(), "all delivered, once")
    assert connections(site, "ok") >= 4


def test_fail_over(make_redis, make_site):
    safe = {"min-replicas-to-write": 1, "min-replicas-max-lag": 2}
    master = make_redis(password="swordfish", settings=safe)
    replica = make_redis(password="swordfish", replica_of=master)
    master.wait_replicas()
    sentinel = make_redis(kind=Sentinel, master=master)
    sentinel.wait_replicas()
    site = make_site(master, redis_sentinels=f"127.0.0.1:1,127.0.0.1:{sentinel.port}", redis_master="mymaster",
                     redis_wait_replicas=1, redis_timeout="1s")
    before = deliver_some(site)
    master.kill()
    eventually(lambda: sentinel.master_port() == replica.port, "the replica is master", timeout=120)  # a Sentinel that stood still waits 30 s
    # Its configuration asks for a replica of its own, as the first one did.
    master.start()
    master.replicate(replica)
    with site.client() as client:
        after = wait_accepted(client)
    eventually(lambda: before | {after} <= site.daemon.delivered(), "delivered on both servers")


def test_fail_over_that_could_lose_messages(make_redis, make_site):
    master = make_redis()
    sentinel = make_redis(kind=Sentinel, master=master)
    site = make_site(master, start=False, redis_sentinels=f"127.0.0.1:{sentinel.port}", redis_master="mymaster")
    site.daemon.spawn()
    says(site, "`min-replicas-to-write` is 0")


@pytest.mark.parametrize("settings, sentence", [
    ({"redis_url": "http://localhost"}, "expected redis://"),
    ({"redis_url": "redis://user:secret@localhost"}, "redis_user and redis_password"),
    ({"redis_user": "x"}, "redis_user needs redis_password"),
    ({"redis_ca_file": "x"}, "rediss://"),
    ({"redis_sentinels": "localhost"}, "redis_sentinels needs redis_master"),
    ({"redis_sentinels": "a:b", "redis_master": "m"}, "is not HOST:PORT"),
])
def test_options_that_can_never_work(make_daemon, settings, sentence):
    daemon = make_daemon(settings={"queue_driver": "redis"} | settings)
    for role in daemon.roles:
        role.spawn()
        assert role.wait() != 0
        assert sentence in role.log() and "secret" not in role.log()
