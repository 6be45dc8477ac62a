"""AMQP connections as npm's rhea sees them, a client that knows nothing of Azure, over TLS and over WebSocket."""

import base64
import re
import signal

import pytest
from tests.support.fix_clients import HttpsClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import MusterServer, StartServer

from muster.domain.sas import create_token

KEY = base64.b64encode(bytes(range(32))).decode()
FAR = 4_000_000_000
TRANSPORTS = ("tls", "ws")


@pytest.fixture(scope="module")
def rhea(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("amqp_corners.js")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of the test's connection."""
    return str(request.node.name)


def policy_key(muster: MusterServer) -> str:
    return muster.hub_connection_string.rpartition("SharedAccessKey=")[2]


def policy_token(muster: MusterServer, policy: str = "iothubowner") -> str:
    return create_token(muster.address, policy_key(muster), FAR, policy)


def refusal(rhea: NodeClient, operation: str, **arguments: object) -> SdkError:
    with pytest.raises(SdkError) as raised:
        rhea.call(operation, **arguments)
    return raised.value


class TestOpening:
    def test_without_sasl(self, rhea: NodeClient, name: str, transport: str) -> None:
        rhea.call("connect", name=name, transport=transport)
        assert rhea.call("close", name=name)

    @pytest.mark.parametrize("subprotocol", ["AMQPWSB10", "amqp"])
    def test_any_sub_protocol_of_amqp(self, rhea: NodeClient, name: str, subprotocol: str) -> None:
        rhea.call("connect", name=name, transport="ws", subprotocol=subprotocol)
        assert rhea.call("close", name=name)

    def test_anonymous(self, rhea: NodeClient, name: str, transport: str) -> None:
        rhea.call("connect", name=name, transport=transport, mechanism="ANONYMOUS")
        assert rhea.call("close", name=name)

    def test_plain_with_a_token(self, muster: MusterServer, rhea: NodeClient, name: str, transport: str) -> None:
        user = f"iothubowner@sas.root.{muster.address}"
        rhea.call("connect", name=name, transport=transport, username=user, password=policy_token(muster))
        assert rhea.call("close", name=name)

    def test_plain_with_a_key(self, muster: MusterServer, rhea: NodeClient, name: str, transport: str) -> None:
        rhea.call("connect", name=name, transport=transport, username="iothubowner", password=policy_key(muster))
        assert rhea.call("close", name=name)

    def test_wrong_credentials(
        self, muster: MusterServer, https: HttpsClient, rhea: NodeClient, name: str, transport: str
    ) -> None:
        https.create_device(f"plain-{transport}")
        wrong = create_token(f"{muster.address}/devices/plain-{transport}", KEY, FAR)
        user = f"plain-{transport}@sas.hub"
        error = refusal(rhea, "connect", name=name, transport=transport, username=user, password=wrong)
        assert "auth" in error.text.lower()
        why = muster.cli("why", f"plain-{transport}").stdout
        assert "sas.signature" in why
        assert "AMQP" in why

    def test_external_without_a_certificate(self, rhea: NodeClient, name: str, transport: str) -> None:
        error = refusal(rhea, "connect", name=name, transport=transport, mechanism="EXTERNAL")
        assert "auth" in error.text.lower()


class TestLinks:
    @pytest.mark.parametrize("sender", [True, False])
    def test_an_unknown_address(self, rhea: NodeClient, name: str, transport: str, sender: bool) -> None:
        rhea.call("connect", name=name, transport=transport)
        error = refusal(rhea, "attach", name=name, address="/nowhere", sender=sender)
        assert error.kind == "amqp:not-found"
        assert '"errorCode":404006' in error.text
        assert rhea.call("close", name=name)

    def test_an_error_on_one_link_leaves_the_others(
        self, muster: MusterServer, rhea: NodeClient, name: str, transport: str
    ) -> None:
        rhea.call("connect", name=name, transport=transport)
        answer = rhea.call("put", name=name, audience=muster.address, token=policy_token(muster))
        assert answer == {"status": 200, "text": "OK", "order": ["accepted", "reply"], "same": True}
        assert refusal(rhea, "attach", name=name, address="/nowhere", sender=True).kind == "amqp:not-found"
        assert rhea.call("attach", name=name, address="$cbs", sender=False) == "$cbs"
        answer = rhea.call("put", name=name, audience=muster.address, token=policy_token(muster))
        assert answer["status"] == 200
        assert rhea.call("close", name=name)


class TestTokens:
    def test_one_that_does_not_count_has_a_report(
        self, muster: MusterServer, rhea: NodeClient, name: str, transport: str
    ) -> None:
        rhea.call("connect", name=name, transport=transport)
        wrong = create_token(muster.address, KEY, 1000, "iothubowner")
        answer = rhea.call("put", name=name, audience=muster.address, token=wrong)
        assert answer["status"] == 401
        tracking_id = re.search(r"Tracking ID:(\S+)", answer["text"])
        assert tracking_id is not None
        assert "sas.expiry" in muster.cli("why", tracking_id[1]).stdout
        assert rhea.call("put", name=name, audience=muster.address, token=policy_token(muster))["status"] == 200

    def test_delete(self, muster: MusterServer, rhea: NodeClient, name: str) -> None:
        rhea.call("connect", name=name)
        assert rhea.call("put", name=name, audience=muster.address, token=policy_token(muster))["status"] == 200
        answer = rhea.call("put", name=name, audience=muster.address, token="", what="delete-token")
        assert answer["status"] == 200


def test_a_server_that_stops_says_so(start_server: StartServer) -> None:
    muster = start_server()
    with NodeClient(muster, "amqp_corners.js") as rhea:
        for transport in TRANSPORTS:
            rhea.call("connect", name=transport, transport=transport)
        waiting = [rhea.start("closed", name=transport) for transport in TRANSPORTS]
        assert muster.stop(signal.SIGTERM) == 0
        assert [future.result(90) for future in waiting] == ["amqp:connection:forced"] * 2
