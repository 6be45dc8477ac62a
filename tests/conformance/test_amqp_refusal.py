"""AMQP is not served yet: the AMQP library of the Python service SDK hears that, and why, on every TLS port."""

import pytest
from tests.support.fix_server import MusterServer


@pytest.mark.parametrize("port", ["5671", "8883"])
def test_uamqp_hears_the_reason(muster: MusterServer, port: str) -> None:
    output = muster.sdk("amqp_send.py", port).stdout
    assert output.count("Received Connection close event: b'amqp:not-implemented'") == 2, output
    assert output.count("Devices can use MQTT on port 8883") == 2
    assert output.count("refused: ") == 2
