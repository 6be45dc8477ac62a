"""Messages over HTTPS: what a sender chose becomes legal headers, and what a device sends is read or refused."""

import json
import re
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE

from muster.domain.c2d_message import C2dDelivery, C2dProperties
from muster.domain.errors import BadRequestError
from muster.frontends.rest.message_headers import bag_of_headers, delivery_headers, read_batch

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = TEXTS.filter(bool)
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

DELIVERIES = st.builds(
    C2dDelivery,
    lock_token=st.uuids().map(str),
    locked_until=st.just(0),
    sequence_number=st.integers(1, 10**12),
    enqueued_time=st.just(1_790_000_000_000_000),
    expiry=st.just(0),
    delivery_count=st.integers(0, 100),
    redelivered=st.booleans(),
    properties=st.builds(
        C2dProperties,
        message_id=TEXTS,
        correlation_id=TEXTS,
        user_id=TEXTS,
        to=TEXTS,
        content_type=TEXTS,
        content_encoding=TEXTS,
        application=st.dictionaries(NAMES, TEXTS, max_size=5),
    ),
    body=st.binary(max_size=10),
)


@given(delivery=DELIVERIES)
def test_what_a_device_gets_is_a_legal_head(delivery: C2dDelivery):
    headers = delivery_headers(delivery)
    for name, value in headers:
        assert TOKEN.fullmatch(name)
        assert HEADER_RE.search(name) is None
        assert HEADER_VALUE_RE.search(value) is None
        assert value.isascii()
    assert headers[0] == (b"ETag", f'"{delivery.lock_token}"'.encode())


@given(delivery=DELIVERIES)
def test_what_has_no_percent_sign_is_read_back(delivery: C2dDelivery):
    application = {
        name: value for name, value in delivery.properties.application.items() if "%" not in name + value and value
    }
    found = {unquote(name.decode()): unquote(value.decode()) for name, value in delivery_headers(delivery)}
    for name, value in application.items():
        assert found[f"iothub-app-{name}"] == value


@given(headers=st.lists(st.tuples(NAMES, TEXTS) | st.tuples(NAMES.map("IoTHub-App-{}".format), TEXTS)))
def test_only_what_is_a_property_is_taken(headers: list[tuple[str, str]]):
    bag = bag_of_headers(headers)
    wanted = {name[len("iothub-app-") :]: value for name, value in headers if name.lower().startswith("iothub-app-")}
    assert json.loads(bag.application_properties) == wanted
    assert bag.size >= sum(len(name.encode()) + len(value.encode()) for name, value in wanted.items())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ITEMS = st.fixed_dictionaries(
    {"body": st.sampled_from(["", "YQ==", "a b", "é"]) | JSON},
    optional={"base64Encoded": st.booleans() | JSON, "properties": st.dictionaries(st.text(max_size=15), JSON)},
)


@given(body=st.binary(max_size=50) | st.lists(ITEMS, max_size=3).map(lambda items: json.dumps(items).encode()))
def test_a_batch_is_read_or_refused(body: bytes):
    try:
        messages = read_batch(body)
    except BadRequestError:
        return
    assert len(messages) == len(json.loads(body))
