"""Fixtures for system/ and torture/: daemons of this test or of this file, and a client with a certificate."""
import pytest

from daemon import Sealpost, Site


@pytest.fixture
def make_daemon(tmp_path):
    """make_daemon(settings=…, env=…, wrapper=…): a daemon that is not started yet; all are ended with the test."""
    daemons = []

    def make(**kw):
        directory = tmp_path / f"daemon{len(daemons)}"
        directory.mkdir()
        daemons.append(Sealpost(directory, **kw))
        return daemons[-1]

    yield make
    for d in daemons:
        d.close()


@pytest.fixture
def site(make_daemon):
    """A fresh daemon for this test alone."""
    return Site(make_daemon().start())


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One daemon for all tests of a file that leave it as they found it."""
    daemon = Sealpost(tmp_path_factory.mktemp("shared")).start()
    yield Site(daemon)
    daemon.close()
