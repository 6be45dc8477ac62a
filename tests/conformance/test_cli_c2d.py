"""``muster c2d`` against a running server: what people and scripts do with it."""

from tests.support.fix_server import MusterServer


def failure(server: MusterServer, *arguments: str) -> str:
    result = server.cli(*arguments, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_send_receive_and_feedback(muster: MusterServer) -> None:
    muster.cli("device", "create", "pump-01")
    options = ("--message-id", "m-1", "--ack", "full", "--property", "color=dark red", "--content-type", "text/plain")
    sent = muster.cli("c2d", "send", "pump-01", "grüß dich", *options).stdout
    assert sent == "queued message m-1 for pump-01\n"
    kept = muster.cli_json("c2d", "receive", "pump-01", "--then", "abandon")
    assert (kept["body"], kept["messageId"], kept["properties"]) == ("grüß dich", "m-1", {"color": "dark red"})
    shown = muster.cli("c2d", "receive", "pump-01").stdout
    assert "color          : dark red\nbody           : grüß dich\n" in shown
    assert "deliveryCount  : 1\n" in shown
    assert "no message waits for pump-01" in failure(muster, "c2d", "receive", "pump-01")
    records = muster.cli_json("c2d", "feedback", "--wait", "60")
    assert [(one["deviceId"], one["statusCode"]) for one in records] == [("pump-01", "Success")]
    assert muster.cli("c2d", "feedback").stdout == "Time  DeviceId  Status  MessageId\n"


def test_reject_and_purge(muster: MusterServer) -> None:
    muster.cli("device", "create", "pump-02")
    file = muster.directory / "body"
    file.write_bytes(b"\0\xff")
    for _ in range(3):
        muster.cli("c2d", "send", "pump-02", "--file", str(file))
    received = muster.cli_json("c2d", "receive", "pump-02", "--then", "reject", "--lock-timeout", "60")
    assert received["bodyBase64"] == "AP8="
    assert muster.cli("c2d", "purge", "pump-02").stdout == "purged 2 messages of pump-02\n"


def test_what_goes_wrong_is_said(muster: MusterServer) -> None:
    refusal = failure(muster, "c2d", "send", "nobody", "x")
    assert "amqp:not-found: The hub" in refusal
    assert "has no device nobody. (tracking id" in refusal
    assert "DeviceNotFound" in failure(muster, "c2d", "purge", "nobody")
    assert "`muster why" in failure(muster, "c2d", "receive", "nobody")
    muster.cli("device", "create", "pump-03")
    assert "--expires" in failure(muster, "c2d", "send", "pump-03", "x", "--expires", "tomorrow")


def test_a_key_that_is_refused_is_said(muster: MusterServer) -> None:
    key = "d3JvbmcgYnkgYWxsIG1lYW5zIG9mIG1lYW5pbmchISE="
    string = f"HostName={muster.address};SharedAccessKeyName=service;SharedAccessKey={key}"
    refusal = failure(muster, "c2d", "send", "pump-01", "x", "--connection-string", string)
    assert "Unauthorized (tracking id" in refusal
    assert "the key is that of policy service, from the connection string" in refusal
