"""A main server, proxies and workers as processes of their own, with one Redis between them: what is promised of
`sealpost up` holds, whichever of them goes away."""
import ssl
import urllib.request
import uuid

import pytest

from client import Client, Load
from daemon import CLIENT, Identity
from relay import Relay
from waiting import eventually

# A Redis that is away refuses connections; one that is slow to answer, on a busy disk, is not away.
SOON = {"retry_interval": "50ms", "lease_time": "1s", "redis_timeout": "20s"}
# Where attempts are counted: a lease that ends because the machine stood still would be one.
STEADY = SOON | {"lease_time": "5m"}
SPOOL = SOON | {"spool": "true", "spool_retry": "50ms"}
LONG = 12000  # fewer bytes than a message of the largest kind on its way, twice as many as a few short ones
SECOND = 15  # and a machine that stands still; what waited for the end of a long poll would take longer


@pytest.fixture
def apart(make_roles):
    """Two proxies and four workers."""
    return make_roles(proxies=2, workers=4, settings=SOON).start()


@pytest.fixture
def small(make_roles):
    return make_roles(settings=SOON).start()


@pytest.fixture
def steady(make_roles):
    return make_roles(settings=STEADY).start()


@pytest.fixture
def spooling(make_roles):
    return make_roles(settings=SPOOL).start()


def client_of(roles, proxy=0):
    return Client(roles.proxies[proxy].address(), roles.issued(CLIENT))


def post(roles, proxy=0, count=1, **kw):
    with client_of(roles, proxy) as client:
        answers = [client.post(**kw) for _ in range(count)]
    assert [a.status for a in answers] == [202] * count
    return [a.json["message_id"] for a in answers]


def all_delivered(roles, ids):
    eventually(lambda: set(ids) <= roles.delivered(), f"{len(ids)} messages are delivered")


def metric(role, name, labels=""):
    with urllib.request.urlopen(role.ready["metrics"] + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{labels} ")), 0.0)


def states(roles):
    return {m["message_id"]: m["status"] for m in roles.messages()}


# --- all is well ---

def test_queued_at_once_and_delivered_within_a_second(apart):
    apart.cli("queue", "pause", "delivery")
    ids = [i for proxy in (0, 1) for i in post(apart, proxy, 5)]
    eventually(lambda: {states(apart).get(i) for i in ids} == {"queued"}, "the store knows them", SECOND)
    with client_of(apart, 1) as client:
        answer = client.get(f"/api/v1/messages/{ids[0]}").json
        assert answer["status"] == "queued", "any proxy knows what another one has taken"
        apart.cli("queue", "resume", "delivery")
        eventually(lambda: set(ids) <= apart.delivered(), "delivered", SECOND)
        assert client.get(f"/api/v1/messages/{ids[0]}").json["status"] == "delivered"


def test_an_idempotency_key_holds_at_every_proxy(apart):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = (post(apart, proxy, headers=key) for proxy in (0, 1))
    assert first == again
    all_delivered(apart, first)
    assert len(apart.messages()) == 1


def test_revocation_reaches_every_proxy(apart):
    who = apart.issue("leaver", "--domain", "example.com")
    clients = [Client(p.address(), who) for p in apart.proxies]
    assert [c.post().status for c in clients] == [202, 202]
    apart.cli("cert", "revoke", "leaver")
    for client in clients:
        refused = eventually(lambda c=client: (a := c.post()).status == 403 and a, "cut off on an open connection", SECOND)
        assert refused.json["code"] == "certificate_revoked"


def test_a_rotated_issuing_ca_is_known_everywhere(small):
    small.cli("ca", "rotate-issuing")
    later = small.issue("later", "--domain", "example.com")
    proxy = small.proxies[0]
    for who in (small.issued(CLIENT), later):
        with Client(proxy.address(), who) as client:
            assert client.post().status == 202, "the root is trusted, and a certificate comes with its issuer"
    # Without its issuer it needs a proxy that has heard of the new one: that asks at start, and every minute.
    later.cert.write_text(later.cert.read_text().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n")
    proxy.restart()

    def accepted():
        try:
            with Client(proxy.address(), later) as client:
                return client.post().status == 202
        except (ssl.SSLError, ConnectionError):
            return False
    eventually(accepted, "the proxy knows the new issuing CA")


def test_the_first_use_at_a_proxy_ends_the_certificate_before(apart, tmp_path):
    old = apart.issued(CLIENT)
    apart.cli("cert", "renew", CLIENT, "--out", tmp_path)
    new = Identity(CLIENT, tmp_path / f"{CLIENT}.pem", tmp_path / f"{CLIENT}.key", tmp_path / "ca.pem")

    def accepts(identity, proxy):
        try:
            with Client(apart.proxies[proxy].address(), identity) as client:
                return client.get("/api/v1/health").status == 200
        except OSError:
            return False
    assert accepts(old, 0), "nobody has used the new one"
    eventually(lambda: accepts(new, 1), "the second proxy knows the new one")
    eventually(lambda: not accepts(old, 0) and not accepts(old, 1), "the old one has ended at both")
    assert accepts(new, 0)


# --- somebody dies ---

def test_a_message_that_the_main_server_dies_of_makes_way(make_roles):
    """It is given up in the end; the others are delivered long before, and are blamed for nothing."""
    roles = make_roles(settings=STEADY | {"breaker_pause": "10ms", "breaker_pause_max": "20ms"})
    host, port = roles.server.settings["server_listen"].rsplit(":", 1)
    with Relay((host, int(port)), most=LONG // 2) as relay:
        roles.worker.settings |= {"server_url": f"https://127.0.0.1:{relay.port}", "worker_batch": 4, "max_attempts": 2}
        roles.start()
        roles.cli("queue", "pause", "delivery")
        ids = post(roles, count=2)
        deadly, = post(roles, text="x" * 1000, metadata={"k": "v" * 4000})
        ids += post(roles, count=10)
        roles.cli("queue", "resume", "delivery")
        all_delivered(roles, ids)
        eventually(lambda: roles.json("queue", "stats")["failed"] == 1, "it is given up")
        assert relay.broken_off >= 3 + 1, "alone three times for the first attempt, once for the second"
    entry, = roles.json("queue", "dead")
    assert entry["message_id"] == deadly
    assert [a["error_message"] for a in entry["attempts"]][0] == "connection_lost"
    assert {m["attempt_count"] for m in roles.messages() if m["message_id"] in ids} == {1}
    assert roles.worker.log().count("worker.message_suspected") == 2


@pytest.mark.parametrize("victim", ["proxy", "worker", "server", "redis"])
def test_killing_any_of_them_loses_and_doubles_nothing(apart, victim):
    loads = [Load(p.address(), apart.issued(CLIENT), connections=3) for p in apart.proxies]
    for role in {"proxy": [apart.proxies[1]], "worker": apart.workers[:2], "server": [apart.server]}.get(
            victim, [apart.redis]):
        goal = len(loads[0].acknowledged) + 20
        eventually(lambda g=goal: len(loads[0].acknowledged) >= g or victim == "redis", "the load goes on")
        role.kill()
        role.start()
    goal = len(loads[0].acknowledged) + 20
    eventually(lambda: len(loads[0].acknowledged) >= goal, "and after it")
    acknowledged = [i for load in loads for i in load.stop()]
    all_delivered(apart, acknowledged)
    assert apart.json("queue", "stats")["failed"] == 0, "no dead letters"


def test_a_worker_that_is_not_let_in_blames_no_message(make_roles):
    """Its request is on its way before the main server's refusal of its certificate comes."""
    roles = make_roles(settings=STEADY | {"breaker_pause": "10ms", "breaker_pause_max": "20ms", "lost_answers_max": 1}).start()
    all_delivered(roles, post(roles))
    roles.cli("cert", "revoke", roles.worker.directory.name)
    roles.worker.restart()
    waits, = post(roles)
    eventually(lambda: "alert" in roles.worker.health()["checks"]["main_server"]["detail"], "it is refused")
    tries = metric(roles.worker, "sealpost_deliveries_total", '{result="released"}')
    eventually(lambda: metric(roles.worker, "sealpost_deliveries_total", '{result="released"}') > tries + 5, "again and again")
    assert roles.json("queue", "show", waits)["attempt_count"] == 0
    assert "worker.message_suspected" not in roles.worker.log()


# --- somebody is away ---

def test_a_proxy_starts_and_works_without_the_main_server(small):
    before = post(small)
    all_delivered(small, before)
    small.server.stop()
    small.proxies[0].restart()
    ids = post(small, count=3)
    small.server.start()
    all_delivered(small, before + ids)


def test_a_status_that_nobody_can_tell(small):
    """The main server knows what was delivered; while it is away the client hears that, and not where it is."""
    ids = post(small, count=1)
    all_delivered(small, ids)
    with client_of(small) as client:
        assert client.get(f"/api/v1/messages/{ids[0]}").json["status"] == "delivered"
        small.server.stop()
        answer = client.get(f"/api/v1/messages/{ids[0]}")
        assert (answer.status, answer.json["code"]) == (503, "unavailable") and int(answer.header("retry-after")) >= 1
        assert "https" not in answer.json["detail"] and "127.0.0.1" not in answer.json["detail"]
        small.server.start()
        eventually(lambda: client.get(f"/api/v1/messages/{ids[0]}").status == 200, "it can be asked again")


def test_the_main_server_away_for_a_while(steady):
    steady.server.kill()
    ids = post(steady, count=10)
    worker = steady.workers[0]
    eventually(lambda: metric(worker, "sealpost_delivery_breaker_state", '{state="open"}') == 1, "the breaker opens")
    ids += post(steady, count=10)
    assert metric(worker, "sealpost_dead_letters_total") == 0
    steady.server.start()
    all_delivered(steady, ids)
    eventually(lambda: metric(worker, "sealpost_delivery_breaker_state", '{state="closed"}') == 1, "and closes")
    assert all(m["attempt_count"] <= 1 for m in steady.messages()), "an outage counts as no attempt"


def test_redis_away_is_503_and_then_over(small):
    ids = post(small, count=3)
    small.redis.stop()
    with client_of(small) as client:
        refused = client.post()
        assert refused.status == 503 and int(refused.header("Retry-After")) >= 1
        assert "redis" not in refused.json["detail"] and "127.0.0.1" not in refused.json["detail"]
        eventually(lambda: client.get("/readyz").status == 503, "not ready")
        eventually(lambda: "worker.lease_failed" in small.worker.log(), "the worker's log says so")
        small.redis.start()
        eventually(lambda: client.get("/readyz").status == 200, "ready again")
        answer = eventually(lambda: (a := client.post()).status == 202 and a, "accepted again")
    all_delivered(small, ids + [answer.json["message_id"]])
    eventually(lambda: "worker.leasing_again" in small.worker.log(), "the worker's log has its end")
    assert small.worker.log().count("worker.lease_failed") <= 2, "not a line for each thread and second"


def test_a_proxy_says_that_it_never_reached_the_main_server(make_roles):
    proxy = make_roles(settings=SOON).proxies[0]
    proxy.spawn()
    eventually(lambda: "feed.lost" in proxy.log(), "why it does not become ready")


def test_redis_frozen_does_not_freeze_the_proxy(make_roles):
    roles = make_roles(settings=SOON | {"redis_timeout": "1s"}).start()
    roles.redis.pause()
    try:
        with client_of(roles) as client:
            assert client.post().status == 503
            assert client.get("/livez").status == 200
    finally:
        roles.redis.resume()
    wait_ready(roles)
    with client_of(roles) as client:
        answer = eventually(lambda: (a := client.post()).status == 202 and a, "accepted again")
    all_delivered(roles, [answer.json["message_id"]])


def wait_ready(roles):
    with client_of(roles) as client:
        return eventually(lambda: client.get("/readyz").status == 200, "ready again")


# --- the spool ---

def test_with_a_spool_redis_may_go(spooling):
    proxy = spooling.proxies[0]
    ids = post(spooling, count=3)
    spooling.redis.stop()
    ids += post(spooling, count=20)
    with client_of(spooling) as client:
        assert client.get("/readyz").status == 200
        health = client.get("/api/v1/health").json
        assert (health["status"], health["checks"]["queue"]["status"]) == ("degraded", "degraded")
        assert "spool" in health["checks"]["queue"]["detail"]
        assert client.get(f"/api/v1/messages/{ids[-1]}").json["status"] == "queued"
    assert metric(proxy, "sealpost_spool_active") == 1
    assert metric(proxy, "sealpost_spool_messages") == 20
    assert metric(proxy, "sealpost_spool_oldest_age_seconds") > 0
    spooling.redis.start()
    all_delivered(spooling, ids)
    eventually(lambda: metric(proxy, "sealpost_spool_active") == 0, "the spool is not in use any more")
    assert metric(proxy, "sealpost_spool_messages") == 0
    eventually(lambda: "queue.spool_drained" in proxy.log(), "and the log says so")
    assert proxy.log().count("queue.spooling") == 1
    assert len(spooling.messages()) == len(ids)


def test_no_message_is_refused_when_redis_is_killed_under_load(spooling):
    load = Load(spooling.address(), spooling.issued(CLIENT), connections=6)
    for _ in range(2):
        eventually(lambda goal=len(load.acknowledged) + 50: len(load.acknowledged) >= goal, "the load goes on")
        spooling.redis.kill()
        eventually(lambda goal=len(load.acknowledged) + 50: len(load.acknowledged) >= goal, "without Redis too")
        spooling.redis.start()
        eventually(lambda: metric(spooling.proxies[0], "sealpost_spool_active") == 0, "Redis is back")
    acknowledged = load.stop()
    assert load.refused == []
    all_delivered(spooling, acknowledged)
    assert len(spooling.messages()) == len(set(acknowledged)), "and nothing more"


def test_a_killed_proxy_keeps_its_spool(spooling):
    spooling.redis.kill()
    ids = post(spooling, count=30)
    spooling.proxies[0].kill()
    spooling.proxies[0].start()
    ids += post(spooling, count=5)
    spooling.proxies[0].kill()
    spooling.redis.start()
    spooling.proxies[0].start()
    all_delivered(spooling, ids)
    assert len(spooling.messages()) == len(ids)


def test_a_proxy_killed_while_its_spool_drains(spooling):
    spooling.redis.kill()
    ids = post(spooling, count=10)
    with client_of(spooling) as client:
        item = {"sender_number": "+4915112345678", "message_body": "one of many"}
        for _ in range(8):
            answer = client.request("POST", "/api/v1/messages/batch", str([item] * 1000).replace("'", '"'),
                                    {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())})
            ids += [r["message_id"] for r in answer.json["results"]]
    spooling.redis.start()
    proxy = spooling.proxies[0]
    for _ in range(3):
        before = metric(proxy, "sealpost_spool_messages")
        eventually(lambda b=before: metric(proxy, "sealpost_spool_messages") < max(b, 1), "it drains", interval=0)
        proxy.kill()
        proxy.start()
    all_delivered(spooling, ids)
    assert len(spooling.messages()) == len(ids)


def test_idempotency_keys_move_with_the_spool(spooling):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    spooling.redis.stop()
    first = post(spooling, headers=key)
    assert post(spooling, headers=key) == first, "within the spool"
    spooling.redis.start()
    all_delivered(spooling, first)
    eventually(lambda: metric(spooling.proxies[0], "sealpost_spool_active") == 0, "all is in Redis")
    assert post(spooling, headers=key) == first, "and after it"
    with client_of(spooling) as client:
        assert client.post("another text", headers=key).status == 422
    assert len(spooling.messages()) == 1


def test_a_full_spool_refuses(make_roles):
    roles = make_roles(settings=SPOOL | {"spool_messages_max": "5"}).start()
    roles.redis.stop()
    ids = post(roles, count=5)
    with client_of(roles) as client:
        refused = client.post()
        assert refused.status == 503 and "Retry-After" in {k.title() for k in refused.headers}
        assert client.get("/readyz").status == 503
    roles.redis.start()
    all_delivered(roles, ids)
    wait_ready(roles)
    all_delivered(roles, post(roles))


def test_a_proxy_with_a_spool_starts_without_redis(spooling):
    spooling.redis.stop()
    spooling.proxies[0].restart()
    ids = post(spooling, count=3)
    spooling.redis.start()
    all_delivered(spooling, ids)
