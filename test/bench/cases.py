"""What is compared with what. Each case returns rows of the table. Runs that are compared take turns, and the ratio is
the median of the ratios of neighbouring runs: what else the machine is doing changes more slowly than that."""
import time
from dataclasses import dataclass
from statistics import median

from engines import BareResponder, Certificates, Redis, RolesApart, Sealpost, end_to_end as measure_end_to_end, load

MIB = 1 << 20
MILLION = 1_000_000


@dataclass
class Row:
    """One line of the table: the median of what was measured, and of what it is compared with, round by round.
    The bar is for the ratio where there is one."""
    name: str
    figures: list
    unit: str
    references: list | None = None
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def figure(self):
        return median(self.figures)

    @property
    def reference(self):
        return median(self.references) if self.references else None

    @property
    def ratio(self):
        return median(f / r for f, r in zip(self.figures, self.references)) if self.references else None

    @property
    def met(self):
        """True, False, or None where there is no bar."""
        value = self.figure if self.ratio is None else self.ratio
        if self.at_least is not None:
            return value >= self.at_least
        return value <= self.at_most if self.at_most is not None else None


@dataclass
class Setting:
    program: str
    bare_program: str
    top: str
    directory: object
    rounds: int
    seconds: float
    million: int  # messages in what the bars call a queue of a million
    say: object   # tells what is being measured

    def sealpost(self, name, *settings):
        return Sealpost(self.directory / name, self.program, settings)

    def load(self, server, **options):
        if "messages" not in options:
            options |= {"duration": f"{self.seconds}s", "warmup": "500ms"}
        return load(self.program, server, **options)

    def end_to_end(self, server, **options):
        return measure_end_to_end(self.program, server, duration=f"{self.seconds * 3}s", warmup="500ms", **options)


def each(key, results, scale=1):
    return [r[key] * scale for r in results]


def accept(s):
    """One message a request, delivery paused: what it costs to accept."""
    rows = []
    certificates = Certificates(s.directory / "certificates")
    engines = bare, plain, tls, sealpost = (
        BareResponder(s.directory / "bare", s.bare_program, certificates), Redis(s.directory / "redis", s.top),
        Redis(s.directory / "redis-tls", s.top, certificates), s.sealpost("accept"))
    try:
        sealpost.pause_delivery()
        limits, posts = [], {16: [], 64: [], 256: []}
        peers = {peer: {64: [], 256: []} for peer in (plain, tls)}
        for turn in range(s.rounds):
            s.say(f"single POST against the bare responder and Redis, round {turn + 1} of {s.rounds}")
            limits.append(s.load(bare, connections=64))
            for connections, results in posts.items():
                results.append(s.load(sealpost, connections=connections))
                for peer, figures in peers.items():
                    if connections in figures:
                        figures[connections].append(peer.xadd_per_second(connections, int(s.seconds * 40_000)))
        rows.append(Row("CPU of one accepted message, 64 connections", each("server_cpu_us_per_message", posts[64]),
                        "us", each("server_cpu_us_per_message", limits), "bare TLS responder", at_most=2.5))
        for connections, results in posts.items():
            name, figures = f"single POST, {connections} connections", each("messages_per_second", results)
            peer = peers[plain].get(connections)
            rows.append(Row(name, figures, "/s", peer, "Redis XADD, always" if peer else "",
                            at_least=1.0 if peer else None))
            if peer:
                rows.append(Row(f"{name}, TLS on both sides", figures, "/s", peers[tls][connections],
                                "Redis XADD, always, TLS"))
            rows.append(Row(f"{name}, p99", each("latency_p99_us", results, 1e-3), "ms"))
    finally:
        for engine in engines:
            engine.stop()
    return rows


def batches(s):
    sealpost = s.sealpost("batches")
    try:
        sealpost.pause_delivery()
        s.say("batches of 100")
        results = [s.load(sealpost, connections=64, batch=100) for _ in range(s.rounds)]
    finally:
        sealpost.stop()
    return [Row("batches of 100, 64 connections", each("messages_per_second", results), "/s", at_least=300_000),
            Row("batches of 100, CPU of one message", each("server_cpu_us_per_message", results), "us")]


def storm(s):
    """Clients that are connected, while others keep arriving."""
    sealpost = s.sealpost("storm")
    calm, stormy = [], []
    try:
        sealpost.pause_delivery()
        for turn in range(s.rounds):
            s.say(f"handshake storm, round {turn + 1} of {s.rounds}")
            calm.append(s.load(sealpost, connections=64, rate=2000))
            stormy.append(s.load(sealpost, connections=64, rate=2000, churn=300))
    finally:
        sealpost.stop()
    return [Row("p99 at 2000/s with 300 handshakes/s beside", each("latency_p99_us", stormy, 1e-3), "ms",
                each("latency_p99_us", calm, 1e-3), "without them", at_most=2.0),
            Row("handshakes, p99", each("handshake_p99_us", stormy, 1e-3), "ms"),
            Row("handshakes done", each("handshakes_per_second", stormy), "/s")]


def memory(s):
    connections = 1000
    sealpost = s.sealpost("memory")
    try:
        s.say("memory at rest and per idle connection")
        rest = sealpost.resident_bytes()
        idle = sealpost.open_idle(connections)
        held = sealpost.resident_bytes() - rest
        for connection in idle:
            connection.close()
    finally:
        sealpost.stop()
    return [Row("memory of `sealpost up` at rest", [rest / MIB], "MiB", at_most=40),
            Row("memory per idle connection", [held / connections / 1024], "KiB", at_most=64)]


def delivered(s):
    """From accepted to stored, with as many messages as a backlog could hide in."""
    sealpost = s.sealpost("delivered")
    try:
        s.load(sealpost, connections=16, batch=100, messages=100_000)
        sealpost.wait_until_delivered(60)
        before = sealpost.resident_bytes()
        s.say(f"{s.million} messages until they are stored")
        start = time.monotonic()
        s.load(sealpost, connections=16, batch=100, messages=s.million)
        sealpost.wait_until_delivered(120)
        seconds = time.monotonic() - start
        after = sealpost.resident_bytes()
    finally:
        sealpost.stop()
    return [Row("accepted and stored", [s.million / seconds], "/s", at_least=40_000),
            Row(f"memory after {s.million} messages", [after / MIB], "MiB", [before / MIB], "after 100000",
                at_most=1.25)]


def end_to_end(s):
    """Steadily from accepted to stored: what a load leaves behind, how long a message takes, what it costs."""
    return [*end_to_end_rows(s, "up", s.sealpost("end_to_end")),
            *end_to_end_rows(s, "roles apart", RolesApart(s.directory / "apart", s.program, s.top))]


def end_to_end_rows(s, deployment, engine):
    results = []
    try:
        for turn in range(s.rounds):
            s.say(f"{deployment}: accepted to stored, round {turn + 1} of {s.rounds}")
            results.append(s.end_to_end(engine, connections=16, batch=100))
    finally:
        engine.stop()
    return [Row(f"{deployment}: accepted", each("messages_per_second", results), "/s"),
            Row(f"{deployment}: stored, until none is left", each("stored_per_second_with_drain", results), "/s"),
            Row(f"{deployment}: accepted to stored, p50", each("accept_to_stored_p50_us", results, 1e-3), "ms"),
            Row(f"{deployment}: accepted to stored, p99", each("accept_to_stored_p99_us", results, 1e-3), "ms"),
            *(Row(f"{deployment}: CPU of one message, {name}", each(f"cpu_{name}_us_per_message", results), "us")
              for name in places(results[0]))]


def places(result):
    """The processes that were asked: cpu_PLACE_us_per_message, and not cpu_PLACE_THREADS_us_per_message."""
    names = [key.removeprefix("cpu_").removesuffix("_us_per_message") for key in result
             if key.startswith("cpu_") and key.endswith("_us_per_message")]
    return [name for name in names if "_" not in name]


def long_queue(s):
    """Whether what waits costs anything."""
    full, empty = s.sealpost("full"), s.sealpost("empty")
    try:
        for engine in (full, empty):
            engine.pause_delivery()
        s.say(f"filling a queue with {s.million} messages")
        s.load(full, connections=16, batch=100, messages=s.million)
        full.stop()
        s.say("start with that queue")
        start = full.start()
        results = {full: [], empty: []}
        for turn in range(s.rounds):
            s.say(f"single POST with a long queue, round {turn + 1} of {s.rounds}")
            for engine, list_ in results.items():
                list_.append(s.load(engine, connections=64))
    finally:
        for engine in (full, empty):
            engine.stop()
    return [Row(f"start with {s.million} messages queued", [start], "s", at_most=3),
            Row(f"single POST with {s.million} queued", each("messages_per_second", results[full]), "/s",
                each("messages_per_second", results[empty]), "empty queue", at_least=0.8)]


CASES = {case.__name__: case for case in (accept, batches, storm, memory, delivered, end_to_end, long_queue)}
