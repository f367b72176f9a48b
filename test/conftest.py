"""Fixtures for system/ and torture/: daemons of this test or of this file, and a client with a certificate."""
import shutil

import pytest

from daemon import Sealpost, Site, make_template
from redis import Redis
from roles import RolesApart, copy_template, make_roles_template


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
    for d in deployments:
        d.close()


@pytest.fixture
def make_daemon(tmp_path, request):
    """make_daemon(fresh=…, settings=…, env=…, wrapper=…): a daemon that is not started yet; all end with the test.

    fresh: with an empty data directory instead of a copy of the template.
    """
    daemons = []

    def make(fresh=False, **kw):
        directory = tmp_path / f"daemon{len(daemons)}"
        if fresh:
            directory.mkdir()
        else:
            shutil.copytree(request.getfixturevalue("template"), directory)
        daemons.append(Sealpost(directory, **kw))
        return daemons[-1]

    yield make
    for d in daemons:
        d.close()


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
    for s in servers:
        s.close()


@pytest.fixture
def site(make_daemon):
    """A running daemon for this test alone."""
    return Site(make_daemon().start())


@pytest.fixture(scope="module")
def shared(tmp_path_factory, template):
    """One daemon for all tests of a file that leave it as they found it."""
    directory = tmp_path_factory.mktemp("shared") / "daemon"
    shutil.copytree(template, directory)
    daemon = Sealpost(directory).start()
    yield Site(daemon)
    daemon.close()
