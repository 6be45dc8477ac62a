"""What ``make demo`` runs, and the tutorial by hand: every command of ``docs/tutorial.md``, in its order."""

import re
import shlex
import subprocess
import sys

import pytest
from tests.support.fix_server import REPOSITORY, SDK_PYTHON, clean_environment

BLOCKS = re.findall(
    r"^```sh( fails)?\n(.*?)^```$", (REPOSITORY / "docs" / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL
)
PASS_PHRASE = "1234\n" * 2


@pytest.mark.parametrize("options", [[], ["--no-openssl", "--fast"]], ids=["openssl", "muster cert"])
def test_the_demo_runs_the_whole_story_and_leaves_nothing_behind(options, tmp_path):
    (tmp_path / "runtime").mkdir()
    (tmp_path / "temporary").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "muster", "demo", "--python", str(SDK_PYTHON), *options],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
        env=clean_environment(XDG_RUNTIME_DIR=str(tmp_path / "runtime"), TMPDIR=str(tmp_path / "temporary")),
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    steps = re.findall(r"^Step \d: .*$", result.stdout, re.MULTILINE)
    assert len(steps) == 8
    for heard in (
        "Sent to raspberrypi-b over AMQP: Hello, device!",
        "Message from the cloud: Hello, device!",
        'Method blink with {"times": 3}: 200 {"blinked": 3}',
        'Payload : {"blinked": 3}',
        'Reported: {"interval": 30}',
        "✗ x509.thumbprint",
        "Azure answers",
    ):
        assert f"  {heard}" in result.stdout, f"{heard!r} is missing"
    assert "Done: raspberrypi-b registered, was assigned to hub" in result.stdout
    assert re.search(r"^The demo took \d+\.\d s", result.stdout, re.MULTILINE)
    assert ("openssl req -outform PEM" in result.stdout) is not bool(options)
    assert list((tmp_path / "runtime").iterdir()) == list((tmp_path / "temporary").iterdir()) == []


def test_a_demo_without_the_sdk_fails_clearly_and_stops_its_server(tmp_path):
    (tmp_path / "temporary").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "muster", "demo", "--python", sys.executable],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=clean_environment(TMPDIR=str(tmp_path / "temporary")),
        check=False,
    )
    assert result.returncode == 1
    assert "pip install azure-iot-device" in result.stderr
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def run_block(muster, tmp_path):
    """Runs a block of the documentation as a user would, and gives its standard output."""
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, command in (("python", str(SDK_PYTHON)), ("muster", f"{sys.executable} -m muster")):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        shim.chmod(0o755)
    environment = clean_environment(MUSTER_DATA_DIR=str(muster.data_directory))
    environment["PATH"] = f"{shims}:{environment['PATH']}"

    def run(script, place):
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            input=PASS_PHRASE,
            capture_output=True,
            text=True,
            timeout=240,
            cwd=place,
            env=environment,
            start_new_session=True,  # no terminal: openssl asks standard input for the pass phrase
            check=False,
        )

    return run


def test_every_command_of_the_tutorial_does_what_it_says(run_block, tmp_path):
    place = tmp_path / "project"
    place.mkdir()
    for name in ("device.py", "both_ways.py"):
        (place / name).write_bytes((REPOSITORY / "examples" / "tutorial_device" / name).read_bytes())
    said = []
    for fails, script in BLOCKS:
        result = run_block(script, place)
        assert (result.returncode != 0) is bool(fails), f"{script}\n{result.stdout}\n{result.stderr}"
        said.append(result.stdout + result.stderr)
    text = "\n".join(said)
    for wanted in (
        "Initial Twin State           : ",
        "Assigned to hub",
        '"hostname": ',
        "AssignedHub    : ",
        'Payload : {"blinked": 3}',
        "Message from the cloud: Hello, device!",
        'Reported: {"interval": 30}',
        "✗ x509.thumbprint",
        "✗ enrollment.enabled",
        "invalid registration status disabled",
    ):
        assert wanted in text, f"{wanted!r} is missing"


def test_the_story_is_told_on_the_way(muster, tmp_path):
    """``muster tutorial`` again on the same server: what an earlier run left is used, not overwritten."""
    arguments = ["tutorial", "--directory", str(tmp_path / "t"), "--fast", "--python", str(SDK_PYTHON)]
    arguments += ["--registration-id", "raspberrypi-c"]
    first = muster.cli(*arguments).stdout
    second = muster.cli(*arguments).stdout
    assert "is there from an earlier run and is used again" not in first
    assert "is there from an earlier run and is used again" in second
    assert "is enrolled with this certificate from an earlier run" in second
    other = muster.cli(*[*arguments[:2], str(tmp_path / "other"), *arguments[3:]], check=False)
    assert other.returncode == 1
    assert "raspberrypi-c is enrolled already, with another certificate" in other.stderr
    assert shlex.quote("muster enrollment delete raspberrypi-c")[1:-1] in other.stderr
