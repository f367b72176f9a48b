"""Fixtures for system/ and torture/: daemons of this test or of this file, and a client with a certificate.

What make_daemon, site and shared give is `sealpost up` on SQLite, and in files marked `everywhere` also roles apart on
Redis. $SEALPOST_DEPLOYMENTS (up, redis, or both with a comma) says so for every file, marked or not.
"""
import os
import shutil
from contextlib import ExitStack

import pytest

from daemon import Sealpost, Site, make_template
from redis import Redis
from roles import RolesApart, copy_template, make_roles_template


DEPLOYMENTS = ("up", "redis")


def deployments_of(test):
    asked = os.environ.get("SEALPOST_DEPLOYMENTS")
    if asked:
        wanted = asked.split(",")
        assert set(wanted) <= set(DEPLOYMENTS), f"SEALPOST_DEPLOYMENTS takes {' and '.join(DEPLOYMENTS)}"
    else:
        wanted = DEPLOYMENTS if test.get_closest_marker("everywhere") else ("up",)
    # The very objects of DEPLOYMENTS: a fixture is kept only while its parameter is the same object.
    return [d for d in DEPLOYMENTS if d in wanted]


def without_redis(test, deployments):
    """Those of a test that is marked up_only: skipped with its reason where nothing else was asked for."""
    marker = test.get_closest_marker("up_only")
    if not marker or "redis" not in deployments:
        return deployments
    return ["up"] if "up" in deployments else [pytest.param("redis", marks=pytest.mark.skip(reason=marker.args[0]))]


def pytest_generate_tests(metafunc):
    """Indirect, so that pytest runs all tests of one deployment before those of the other: `shared` starts once each."""
    if "deployment" in metafunc.fixturenames:
        test = metafunc.definition
        metafunc.parametrize("deployment", without_redis(test, deployments_of(test)), indirect=True, scope="module")


@pytest.fixture(scope="module")
def deployment(request):
    return request.param


def close_all(things):
    """In their order; what one of them has to complain of keeps none of the others running."""
    with ExitStack() as ends:
        for thing in reversed(things):
            ends.callback(thing.close)


def deployed(deployment, request, directory, **kw):
    """A daemon of this kind that is not started yet, from its template."""
    if deployment == "redis":
        return RolesApart(copy_template(request.getfixturevalue("roles_template"), directory), **kw)
    shutil.copytree(request.getfixturevalue("template"), directory)
    return Sealpost(directory, **kw)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return make_template(tmp_path_factory.mktemp("template")).directory


@pytest.fixture(scope="session")
def roles_template(tmp_path_factory):
    return make_roles_template(tmp_path_factory.mktemp("roles-template"))


@pytest.fixture
def make_roles(tmp_path, request):
    """make_roles(proxies=…, workers=…, settings=…): roles apart that are not started yet; all end with the test."""
    deployments = []

    def make(**kw):
        directory = copy_template(request.getfixturevalue("roles_template"), tmp_path / f"roles{len(deployments)}")
        deployments.append(RolesApart(directory, **kw))
        return deployments[-1]

    yield make
    close_all(deployments)


@pytest.fixture
def make_daemon(tmp_path, request, deployment):
    """make_daemon(fresh=…, settings=…, env=…, wrapper=…): a daemon that is not started yet; all end with the test.

    fresh: with an empty data directory instead of a copy of the template, and always `sealpost up`.
    """
    daemons = []

    def make(fresh=False, **kw):
        directory = tmp_path / f"daemon{len(daemons)}"
        if fresh:
            directory.mkdir()
            daemons.append(Sealpost(directory, **kw))
        else:
            daemons.append(deployed(deployment, request, directory, **kw))
        return daemons[-1]

    yield make
    close_all(daemons)


@pytest.fixture
def make_redis(tmp_path):
    """make_redis(password=…, tls=…, replica_of=…, settings=…): a running Redis server; all end with the test.

    make_redis(kind=Sentinel, master=…): a running Sentinel.
    """
    servers = []

    def make(kind=Redis, **kw):
        servers.append(kind(tmp_path / f"redis{len(servers)}", **kw))
        return servers[-1].start()

    yield make
    close_all(servers)


@pytest.fixture
def site(make_daemon):
    """A running daemon for this test alone."""
    return Site(make_daemon().start())


@pytest.fixture(scope="module")
def shared(tmp_path_factory, request, deployment):
    """One daemon for all tests of a file that leave it as they found it."""
    daemon = deployed(deployment, request, tmp_path_factory.mktemp("shared") / "daemon").start()
    yield Site(daemon)
    daemon.close()
