"""`make install`: what it brings, where, and that it works there; and that `make uninstall` takes it away again."""
import os
import re
import subprocess
from pathlib import Path

import pytest

from daemon import binary, run_cli

BUILD = Path(binary()).parent
EXPECTED = ["bin/sealpost", "lib/systemd/system/sealpost.service", "lib/systemd/system/sealpost.socket",
            "lib/sysusers.d/sealpost.conf", "share/bash-completion/completions/sealpost", "share/man/man1/sealpost.1",
            "share/doc/sealpost/operations.md", "share/doc/sealpost/decisions/0001-own-http-server.md",
            "share/doc/sealpost/examples/sealpost.yaml", "share/doc/sealpost/LICENSE"]


TOP = Path(__file__).resolve().parents[2]


def install(dest):
    """As `make install` does; what PREFIX is below DESTDIR."""
    if not (BUILD / "build.ninja").is_file():
        pytest.skip("the program is not in a build directory")
    subprocess.run(["/usr/bin/meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", dest], check=True,
                   capture_output=True)
    return next(dest.rglob("bin/sealpost")).parent.parent


def uninstall(dest):
    """The build directory of the tests is set up already; `-o prefix` leaves it as it is."""
    result = subprocess.run(["make", "-s", "-C", TOP, "-o", "prefix", "uninstall", f"BUILD_DIR={BUILD}", f"DESTDIR={dest}"],
                            check=True, capture_output=True, text=True)
    assert "sealpost is gone" in result.stdout


def files(directory):
    return {path for path in directory.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(DESTDIR, PREFIX within)"""
    dest = tmp_path_factory.mktemp("dest")
    return dest, install(dest)


def test_everything_is_there_and_nothing_beside_the_prefix(installed):
    dest, root = installed
    for name in EXPECTED:
        assert (root / name).is_file(), name
    assert os.access(root / "bin/sealpost", os.X_OK)
    assert all(path.is_relative_to(root) or root.is_relative_to(path) for path in dest.rglob("*"))


def test_the_service_starts_what_was_installed(installed):
    dest, root = installed
    unit = (root / "lib/systemd/system/sealpost.service").read_text()
    program = re.search(r"^ExecStart=(\S+) up ", unit, re.M)[1]
    assert dest / program.lstrip("/") == root / "bin/sealpost"
    assert "@" not in re.sub(r"~?@[a-z-]+", "", unit.split("ExecStart", 1)[1]), "a placeholder was left"


@pytest.mark.parametrize("name", ["sealpost", "server", "proxy", "worker"])
def test_the_example_configurations_are_valid(installed, name):
    example = installed[1] / f"share/doc/sealpost/examples/{name}.yaml"
    assert "valid" in run_cli("config", "check", "--config", example).stdout


def test_the_manual_page_formats(installed):
    page = subprocess.run(["groff", "-mdoc", "-Tutf8", "-ww", installed[1] / "share/man/man1/sealpost.1"],
                          capture_output=True, text=True, check=True)
    assert page.stderr == "" and "message broker" in page.stdout


@pytest.mark.parametrize("line, wanted", [
    ("sealpost cer", {"cert"}),
    ("sealpost cert re", {"renew", "revoke"}),
    ("sealpost cert issue --do", {"--domain"}),
])
def test_completion(installed, line, wanted):
    words = line.split(" ")
    script = f"""
source "$1"
COMP_WORDS=("$2" {" ".join(words[1:])}); COMP_CWORD={len(words) - 1}
_sealpost
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(
        ["bash", "-c", script, "bash", installed[1] / "share/bash-completion/completions/sealpost", binary()],
        capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == wanted


def test_uninstall_takes_everything_away_and_nothing_else(tmp_path):
    root = install(tmp_path)
    install(tmp_path)  # once more, as an upgrade does
    (root / "share/doc/sealpost/decisions/0000-of-an-older-version.md").touch()
    foreign = {root / "bin/other", root / "lib/systemd/system/other.service", root / "share/doc/other/README"}
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    uninstall(tmp_path)
    assert files(tmp_path) == foreign
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()} == {
        "bin", "lib", "lib/systemd", "lib/systemd/system", "share", "share/man", "share/doc", "share/doc/other"}
    uninstall(tmp_path)  # nothing is left to do
    assert files(tmp_path) == foreign
