"""The CA's commands are killed at every system call that leaves something behind, and what is left must be consistent: no
certificate in somebody's hands that the registry does not know, no serial twice, no CRL number that goes back, no issuing
CA without its key, no root key lost.

A sample by default, of $SEALPOST_SAMPLE places; SEALPOST_TORTURE=full kills at every one. $SEALPOST_SEED repeats a sample.
"""
import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon import CLIENT, Sealpost, binary, environment
from faults import FULL

SEED = int(os.environ.get("SEALPOST_SEED") or random.SystemRandom().randrange(1 << 24))
SAMPLE = int(os.environ.get("SEALPOST_SAMPLE") or 2)
KILLED = 99  # of kill-at, when the first process was killed
PASSPHRASE = "correct horse battery staple"


class Scene:
    """A data directory with a client, a revoked one, and the files that an operator would have."""

    def __init__(self, directory, template):
        self.directory = directory
        shutil.copytree(template, directory, dirs_exist_ok=True)
        self.daemon = Sealpost(directory)
        self.out = directory / "out"
        self.passphrase = directory / "passphrase"
        self.exported = directory / "exported.key"
        self.crl = directory / "crl.pem"

    def cli(self, *args, **kw):
        return self.daemon.cli(*args, "--config", self.directory / "config.yaml", **kw)

    def killed(self, at, *args):
        """Runs the command; its exit code, KILLED when it did not get to its end, and what was printed."""
        kill_at = Path(binary()).parent / "test/tools/kill-at"
        result = subprocess.run([kill_at, str(at), binary(), *map(str, args), "--data", str(self.daemon.data), "--config",
                                 str(self.directory / "config.yaml")], capture_output=True, text=True, timeout=240,
                                env=environment({}))
        return result.returncode, result.stdout


def crl_numbers(pem):
    blocks = re.findall(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n", pem, re.S)
    return [int(openssl_stdin(block, "crl", "-noout", "-crlnumber").split("=")[1], 16) for block in blocks]


def openssl_stdin(text, *args):
    return subprocess.run(["openssl", *args], input=text, capture_output=True, text=True, check=True).stdout


def published(scene):
    """Numbers of the lists that lie in the directory."""
    numbers = []
    for path in (scene.daemon.data / "ca").glob("crl*.der"):
        text = subprocess.run(["openssl", "crl", "-inform", "DER", "-in", path, "-noout", "-crlnumber"],
                              capture_output=True, text=True, check=True).stdout
        numbers.append(int(text.split("=")[1], 16))
    return numbers


def serial_of(path):
    return openssl_stdin(path.read_text(), "x509", "-noout", "-serial").strip().split("=")[1].lower()


OPERATIONS = {
    "issue": lambda s: ("cert", "issue", "fresh", "--out", s.out),
    "renew": lambda s: ("cert", "renew", CLIENT, "--out", s.out),
    "revoke": lambda s: ("cert", "revoke", CLIENT),
    "crl": lambda s: ("ca", "crl", "--out", s.crl),
    "rotate": lambda s: ("ca", "rotate-issuing"),
    "export": lambda s: ("ca", "export-root", "--key", s.exported, "--passphrase-file", s.passphrase, "--remove"),
    "import": lambda s: ("ca", "import-root", s.exported, "--passphrase-file", s.passphrase),
    "passphrase": lambda s: ("ca", "passphrase"),
}


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """Copies of this are what is killed."""
    directory = tmp_path_factory.mktemp("stage")
    daemon = Sealpost(directory)
    secret = directory / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE + "\n")
    (directory / "config.yaml").write_text("ca_url: http://ca.example.com\n")
    daemon.cli("init")
    daemon.issue(CLIENT, "--domain", "example.com")
    daemon.issue("gone", "--domain", "example.com")
    daemon.cli("cert", "revoke", "gone")
    return directory


def prepare(scene, name):
    """What an operation needs to be there, or not to be."""
    if name == "import":
        scene.cli("ca", "export-root", "--key", scene.exported, "--passphrase-file", scene.passphrase, "--remove")
    if name == "passphrase":
        (scene.directory / "config.yaml").write_text(f"key_passphrase_file: {scene.passphrase}\n")
    if name == "crl":
        (scene.daemon.data / "ca" / "crl.der").unlink()


def check_certificates(scene, before):
    listed = json.loads(scene.cli("cert", "list", "--json").stdout)
    known = {c["serial"]: c for c in listed}
    assert len(listed) == len(known), "a serial twice"
    assert before <= set(known), "a certificate is forgotten"
    for path in scene.out.glob("*.pem") if scene.out.exists() else ():
        if path.name != "ca.pem":
            assert serial_of(path) in known, f"{path.name} is in somebody's hands and not registered"
            if path.with_suffix(".key").exists():
                public = openssl_stdin(path.read_text(), "x509", "-noout", "-pubkey")
                assert public == openssl_stdin(path.with_suffix(".key").read_text(), "pkey", "-pubout")
    return known


def check_lists(scene, numbers, known):
    scene.cli("cert", "issue", "afterwards", "--out", scene.directory / "later")
    scene.cli("cert", "revoke", "afterwards")
    scene.cli("ca", "crl", "--out", scene.crl)
    pem = scene.crl.read_text()
    assert min(crl_numbers(pem)) > max(numbers, default=0), "a CRL number went back"
    text = subprocess.run(["openssl", "crl", "-noout", "-text"], input=pem, capture_output=True, text=True, check=True).stdout
    if len(crl_numbers(pem)) == 1:
        for serial, cert in known.items():
            assert (serial.upper() in text) == (cert["status"] == "revoked")


def check_root_key(scene):
    """It is in one of its two places at least, and whole."""
    inside = scene.daemon.data / "ca" / "root.key"
    whole = [p for p in (inside, scene.exported) if p.exists() and subprocess.run(
        ["openssl", "pkey", "-in", p, "-passin", f"file:{scene.passphrase}", "-noout"], capture_output=True).returncode == 0]
    assert whole, "the root's key is lost"
    assert not inside.exists() or inside in whole, "root.key is damaged"


def check_issuers(scene):
    shown = json.loads(scene.cli("ca", "show", "--json").stdout)
    assert [i["current"] for i in shown["issuers"]].count(True) == 1
    bundle = scene.directory / "bundle.pem"
    bundle.write_text(shown["ca_pem"])
    chain = scene.directory / "certs" / f"{CLIENT}.pem"
    later = scene.directory / "later" / "afterwards.pem"
    for leaf in (chain, later):
        openssl_stdin("", "verify", "-x509_strict", "-CAfile", str(bundle), str(leaf))


def strike(directory, stage, name, at):
    """Kills the operation there; whether it was killed at all. Fails when what is left is not consistent."""
    scene = Scene(directory, stage)
    prepare(scene, name)
    before = {serial_of(path) for path in (directory / "certs").glob("*.pem") if path.name != "ca.pem"}
    numbers = published(scene)
    code, _ = scene.killed(at, *OPERATIONS[name](scene))
    numbers += published(scene)
    known = check_certificates(scene, before)
    check_lists(scene, numbers, known)
    check_issuers(scene)
    check_root_key(scene)
    scene.cli("audit", "verify")
    shutil.rmtree(directory)
    return code == KILLED


def places(stage, directory, name):
    """How many places there are to kill this operation at."""
    scene = Scene(directory, stage)
    prepare(scene, name)
    code, out = scene.killed(0, *OPERATIONS[name](scene))
    assert code == 0, out
    return int(out.split()[-1])


@pytest.mark.timeout(7200 if FULL else 300 * SAMPLE)
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_anywhere(stage, tmp_path, name, record_property):
    count = places(stage, tmp_path / "whole", name)
    everywhere = range(1, count + 1)
    # Most places are in the start of the program; the sample is of the rest, where things are written.
    chosen = everywhere if FULL else sorted(random.Random(f"{SEED} {name}").sample(everywhere[count // 3:], SAMPLE))
    killed = 0
    for at in chosen:
        for victim in (at, -at):  # every process, and only the one that calls: the signer alone, or its owner alone
            try:
                killed += strike(tmp_path / f"at{victim}", stage, name, victim)
            except AssertionError as e:
                raise AssertionError(f"{name}, killed at {victim} of {count}; SEALPOST_SEED={SEED}: {e}") from e
    record_property("figures", f"{name}: {count} places, killed at {len(chosen)}, {killed} of {2 * len(chosen)} runs cut short")
    assert killed > 0


def test_the_tool_kills_where_it_is_told(stage, tmp_path):
    scene = Scene(tmp_path / "scene", stage)
    code, out = scene.killed(1, "cert", "list")
    assert (code, out) == (KILLED, "")
    code, out = scene.killed(1000000, "cert", "list")
    assert code == 0 and CLIENT in out
