"""Roles apart on one Redis: kills, standstills, outages, cut networks, and a Redis that fails in every way it can."""
import os
import signal
import time
from collections import Counter
from contextlib import contextmanager

from bed import SOMEWHERE, accept_some, deliver_one, freeze, metric, settle
from daemon import Sealpost
from deployment import LEASE_S, Deployment
from hosts import Network
from ledger import AdminConnection, Ledger
from load import LedgerLoad
from ports import own_port
from redis import Redis, Sentinel
from roles import LOOPBACK, Place, here
from waiting import eventually

SPOOL = {"spool": "true"}


@contextmanager
def one_redis(directory, address=LOOPBACK):
    """A Redis that runs; address: where it listens besides."""
    bind = " ".join({LOOPBACK: None, address: None})
    redis = Redis(directory / "redis", settings={"bind": bind, "protected-mode": "no"})
    try:
        yield redis.start()
    finally:
        redis.close()


@contextmanager
def apart(directory, rounds, options, place=here, proxy_settings=None, keys=True):
    """(deployment, ledger, load), all running: two proxies, four workers and a main server, on that queue."""
    ledger = Ledger(f"{rounds.name} {rounds.seed}")
    with Deployment(directory, options, place, proxy_settings) as deployment:
        deployment.start()
        with LedgerLoad(ledger, deployment.address, deployment.identity, keys=keys) as load:
            yield deployment, ledger, load
        deployment.check_logs()


def finish(deployment, ledger, load):
    """One more message from end to end, then the comparison."""
    deliver_one(deployment, deployment.identity, ledger)
    return settle(deployment.server, ledger, load, stop=deployment.stop)


def name_of(role):
    return role.command if isinstance(role, Sealpost) else "redis"


# --- kills and standstills ---

def kill_roles(directory, rounds):
    """SIGKILL of any roles and of Redis under load: two proxies, four workers, a main server."""
    kills = Counter()
    with one_redis(directory) as redis, apart(directory, rounds, redis.options()) as (deployment, ledger, load):
        for random in rounds:
            accept_some(load, random.choice(SOMEWHERE))
            everyone = [redis, *deployment.roles]  # in the order in which they are started again
            victims = random.sample(everyone, random.choice([1, 1, 1, 2, 4]))
            for victim in victims:
                victim.kill()
                kills[name_of(victim)] += 1
            time.sleep(random.choice([0, 0, 0.1, 1]))
            for victim in sorted(victims, key=everyone.index):
                victim.start()
        figures, broken = finish(deployment, ledger, load)
    return figures | {"kills": dict(kills)}, broken


def freeze_roles(directory, rounds):
    """A worker, and now and then another role or Redis, is frozen for longer than its leases, and thawed."""
    frozen = Counter()
    with one_redis(directory) as redis, apart(directory, rounds, redis.options()) as (deployment, ledger, load):
        for random in rounds:
            accept_some(load, random.choice(SOMEWHERE))
            other = random.choice([redis, deployment.server, *deployment.proxies])
            victim = random.choice([*deployment.workers, other])
            pid = victim.process.pid
            freeze(pid)
            time.sleep(random.uniform(0.8, 1.6) * LEASE_S)
            os.kill(pid, signal.SIGCONT)
            frozen[name_of(victim)] += 1
        figures, broken = finish(deployment, ledger, load)
    return figures | {"frozen": dict(frozen)}, broken


# --- the main server away ---

BUSY, CALM = 400, 10  # messages a second
LONG_LEASE = "5m"  # one that ended because this machine stood still would count as an attempt


def outage(directory, rounds):
    """The main server is away while messages wait: 10 minutes and 10000 of them; no attempt is counted, none dies."""
    away_s, waiting = (600, 10000) if rounds.full else (3, 500)
    with one_redis(directory) as redis, \
            apart(directory, rounds, redis.options(lease_time=LONG_LEASE)) as (deployment, ledger, load):
        drains = []
        for _random in rounds:
            deployment.server.kill()
            began = time.monotonic()
            accept_some(load, waiting)
            load.pace(CALM)
            while (left := began + away_s - time.monotonic()) > 0:
                rounds.show(f"the main server is away for {left:.0f} s more")
                time.sleep(min(1, left))
            deployment.server.start()
            drains.append(drain(deployment.server))
            load.pace(BUSY)
        attempts = most_attempts(deployment.server)
        figures, broken = finish(deployment, ledger, load)
    if attempts > 1:
        broken.append(f"a message was attempted {attempts} times: an outage is not the message's fault")
    return figures | {"away_s": away_s, "waiting": waiting, "attempts_at_most": attempts,
                      "stored_each_half_second": drains}, broken


def drain(server, timeout=120):
    """Messages stored in each half second from the server's return on, until hardly any waits."""
    pace, before, deadline = [], 0, time.monotonic() + timeout
    while not pace or server.json("queue", "stats")["queued"] > CALM:
        assert time.monotonic() < deadline, f"what waited for the main server is not delivered: {pace}"
        time.sleep(0.5)
        now = metric(server, 'sealpost_messages_stored_total{result="stored"}')
        pace.append(int(now - before))
        before = now
    return pace


def most_attempts(server):
    connection = AdminConnection(server.ready["admin_socket"])
    attempts, cursor = 0, ""
    while True:
        page = connection.get(f"/admin/messages?limit=500{cursor}")
        attempts = max([attempts, *(m["attempt_count"] for m in page["messages"])])
        if not page.get("next_cursor"):
            connection.close()
            return attempts
        cursor = f"&cursor={page['next_cursor']}"


# --- the network ---

class Cuts:
    """What can go wrong between hosts, by name."""

    def __init__(self, network, server, proxies, workers):
        self.kinds = {
            "worker cut off": workers.cut,
            "main server cut off": server.cut,
            "proxies cut off": proxies.cut,
            "deliveries vanish": lambda: workers.drop_to(server),
            "answers to deliveries vanish": lambda: server.drop_to(workers),
            "nothing of the proxies reaches the main server": lambda: proxies.drop_to(server),
            "nothing of the workers reaches Redis": lambda: workers.drop_to(network.here),
            "nothing of Redis reaches the workers": lambda: network.here.drop_to(workers),
        }


def network(directory, rounds):
    """Proxies, workers and main server on hosts of their own, cut off and half open for seconds at a time."""
    counts = Counter()
    with Network() as net:
        hosts = {role: net.host(role) for role in ("server", "proxy", "worker")}

        def place(name):
            host = hosts[name.split("-")[0]]
            return Place(host.address, tuple(host.wrapper))
        cuts = Cuts(net, hosts["server"], hosts["proxy"], hosts["worker"])
        with one_redis(directory, net.here.address) as redis, \
                apart(directory, rounds, redis.options(redis_url=f"redis://{net.here.address}:{redis.port}/0"),
                      place) as (deployment, ledger, load):
            for random in rounds:
                accept_some(load, random.choice(SOMEWHERE))
                kind = random.choice(sorted(cuts.kinds))
                cuts.kinds[kind]()
                counts[kind] += 1
                time.sleep(random.uniform(0.2, 5))
                net.heal()
                deliver_one(deployment, deployment.identity, ledger)
            figures, broken = finish(deployment, ledger, load)
    return figures | {"faults": dict(counts)}, broken


# --- Redis ---

class Nowhere:
    """A master that does not exist: whoever follows it is read-only and keeps what it has."""

    def __init__(self):
        self.port = own_port()


class RedisFaults:
    """Each kind is a pair: what breaks it, and what mends it."""

    def __init__(self, redis):
        self.kinds = {
            "killed": (redis.kill, redis.start),
            "restarted": (redis.stop, redis.start),
            "frozen": (redis.pause, redis.resume),
            "full": (lambda: redis.config("maxmemory", 1), lambda: redis.config("maxmemory", 0)),
            "read-only": (lambda: redis.replicate(Nowhere()), lambda: redis.replicate(None)),
            "without replicas": (lambda: redis.config("min-replicas-to-write", 1),
                                 lambda: redis.config("min-replicas-to-write", 0)),
            "forgets its scripts": (lambda: redis.command("SCRIPT", "FLUSH"), lambda: None),
            "drops connections": (lambda: redis.command("CLIENT", "KILL", "TYPE", "normal"), lambda: None),
        }


def redis_faults(directory, rounds):
    """Redis is killed, restarted, frozen, filled, made read-only, loses replicas, scripts and connections."""
    counts = Counter()
    with one_redis(directory) as redis, apart(directory, rounds, redis.options()) as (deployment, ledger, load):
        faults = RedisFaults(redis)
        for random in rounds:
            accept_some(load, random.choice(SOMEWHERE))
            kind = random.choice(sorted(faults.kinds))
            counts[kind] += 1
            break_it, mend_it = faults.kinds[kind]
            break_it()
            time.sleep(random.choice([0, 0.1, 1, 3]))
            mend_it()
            deliver_one(deployment, deployment.identity, ledger)
        figures, broken = finish(deployment, ledger, load)
    return figures | {"faults": dict(counts)}, broken


def spool(directory, rounds):
    """With `spool` on, proxies accept while Redis is away, are killed meanwhile, and hand over what they have kept.

    Without idempotency keys: nobody can ask Redis for one while it is away, which is a known price of the spool."""
    counts = Counter()
    with one_redis(directory) as redis, \
            apart(directory, rounds, redis.options(), proxy_settings=SPOOL, keys=False) as (deployment, ledger, load):
        for random in rounds:
            break_it, mend_it = random.choice([(redis.kill, redis.start), (redis.pause, redis.resume)])
            accept_some(load, random.choice(SOMEWHERE))
            break_it()
            before = load.acknowledged
            accept_some(load, random.choice(SOMEWHERE))
            counts["accepted without Redis"] += load.acknowledged - before
            if random.random() < 0.5:
                proxy = random.choice(deployment.proxies)
                proxy.kill()
                proxy.start()
                counts["proxies killed meanwhile"] += 1
            mend_it()
            deliver_one(deployment, deployment.identity, ledger)
        figures, broken = finish(deployment, ledger, load)
    return figures | dict(counts), broken


def failover(directory, rounds):
    """The master of Redis is killed, a Sentinel makes its replica the master, and the old one returns as replica."""
    servers = [Redis(directory / "redis-0")]
    servers.append(Redis(directory / "redis-1", replica_of=servers[0]))
    sentinel = Sentinel(directory / "sentinel", servers[0])
    options = servers[0].options(redis_sentinels=f"{LOOPBACK}:{sentinel.port}", redis_master=sentinel.name,
                                 redis_wait_replicas=1)
    try:
        for process in (*servers, sentinel):
            process.start()
        with apart(directory, rounds, options) as (deployment, ledger, load):
            for random in rounds:
                master = next(s for s in servers if s.port == sentinel.master_port())
                sentinel.wait_replicas()
                accept_some(load, random.choice(SOMEWHERE))
                master.kill()
                eventually(lambda: sentinel.master_port() != master.port, "the replica has taken over", timeout=180)
                time.sleep(random.choice([0, 1, 3]))
                master.start()
                deliver_one(deployment, deployment.identity, ledger)
            return finish(deployment, ledger, load)
    finally:
        for process in (sentinel, *servers):
            process.close()
