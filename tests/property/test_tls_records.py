"""TLS, whatever the network does: any chunking gives the same, and any bytes give an orderly end."""

import itertools
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from muster.frontends.tls.context import advance_handshake
from muster.frontends.tls.records import MAX_FEED, PublicRecords, record_layer
from tests.support.fix_listener import server_tls
from tests.support.tls_ends import established, make_client, step, take

MESSAGES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20)
LAYERS = st.sampled_from([PublicRecords, record_layer()])
VERSIONS = st.sampled_from(["1.2", "1.3"])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at the given places, in parts that are no larger than a feed."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts), *range(0, len(data), MAX_FEED)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@settings(max_examples=50, deadline=None)
@given(messages=MESSAGES, cuts=st.lists(st.integers(min_value=0)), layer=LAYERS, version=VERSIONS)
def test_any_chunking_gives_the_same_bytes(messages, cuts, layer, version):
    server, client = established(version)
    records = layer(server)
    for message in messages:
        client.sendall(message)
    received = [records.receive(piece) for piece in pieces(take(client), cuts)]
    assert b"".join(received) == b"".join(messages)
    assert records.end is None


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(min_size=1, max_size=2000), layer=LAYERS, version=VERSIONS)
def test_noise_after_the_handshake_is_an_end_or_nothing(noise, layer, version):
    server, _client = established(version)
    records = layer(server)
    assert records.receive(noise) == b""
    assert records.end is None or isinstance(records.end, SSL.Error)


@settings(max_examples=50, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7), version=VERSIONS)
def test_one_wrong_bit_never_gives_other_bytes(place, bit, version):
    server, client = established(version)
    records = record_layer()(server)
    client.sendall(b"message")
    sent = bytearray(take(client))
    sent[place % len(sent)] ^= 1 << bit
    assert records.receive(bytes(sent)) == b""


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(min_size=1, max_size=600), version=VERSIONS)
def test_noise_in_the_handshake_is_an_openssl_error_or_nothing(noise, version):
    server, client = server_tls().connection(), make_client(version)
    step(client)
    server.bio_write(take(client))
    assert not advance_handshake(server)
    server.bio_write(noise)
    with suppress(SSL.Error):
        assert not advance_handshake(server)
