"""``muster method invoke`` against a running server and a device with the unmodified azure-iot-device."""

from collections.abc import Iterator

import pytest
from tests.support.fix_clients import OpenClient, SdkClient
from tests.support.fix_server import MusterServer


@pytest.fixture(scope="module")
def device(muster: MusterServer, clients: OpenClient) -> Iterator[SdkClient]:
    """``pump-01``, connected."""
    sdk = clients("lasting_device.py")
    muster.cli("device", "create", "pump-01")
    secret = muster.cli("device", "connection-string", "pump-01").stdout.strip()
    sdk.call("connect", connection="pump-01", connection_string=secret)
    yield sdk
    sdk.call("close", connection="pump-01")


def failure(server: MusterServer, *arguments: str) -> str:
    result = server.cli("method", "invoke", *arguments, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.usefixtures("device")
def test_an_answer_is_printed_whatever_the_device_says_in_it(muster: MusterServer) -> None:
    payload = muster.directory / "payload.json"
    payload.write_text('{"speed": [3, null]}')
    assert muster.cli_json("method", "invoke", "pump-01", "echo", "--payload", f"@{payload}") == {
        "status": 200,
        "payload": {"speed": [3, None]},
    }
    shown = muster.cli("method", "invoke", "pump-01", "fail", "--payload", '"grüß"').stdout
    assert shown == 'Status  : 500\nPayload : "grüß"\n'


@pytest.mark.usefixtures("device")
def test_no_answer_is_a_failure_in_plain_words(muster: MusterServer) -> None:
    message = failure(muster, "pump-01", "sleep", "--response-timeout", "5")
    assert "pump-01 did not answer within 5 s (504101)" in message
    muster.cli("device", "create", "pump-02")
    message = failure(muster, "pump-02", "echo")
    assert "pump-02 is not connected, or does not listen for direct methods (404103)" in message
    message = failure(muster, "pump-02", "echo", "--connect-timeout", "1")
    assert "methods and did not within 1 s (404103)" in message
    assert "the hub has no device nobody (404001)" in failure(muster, "nobody", "echo")
    assert "--payload is not valid JSON" in failure(muster, "pump-01", "echo", "--payload", "{")
    assert "connectTimeoutInSeconds (60) must not be more" in failure(
        muster, "pump-01", "echo", "--connect-timeout", "60"
    )
