"""Hypothesis strategies for MQTT packets that the protocol can carry."""

from hypothesis import strategies as st

from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
packet_ids = st.integers(1, 65_535)
qos = st.integers(0, 2)
binary = st.binary(max_size=20)

levels = st.text(st.sampled_from("ab$ä"), max_size=2)
topic_names = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool).map(str.encode)


@st.composite
def topic_filters(draw):
    parts = draw(st.lists(st.one_of(levels, st.just("+")), max_size=4))
    if not parts or draw(st.booleans()):
        parts.append(draw(st.sampled_from(["#", "a"])))
    return "/".join(parts).encode() or b"/"


wills = st.builds(Will, topic_names, binary, qos, retain=st.booleans())


@st.composite
def connects(draw):
    username = draw(st.none() | text)
    password = None if username is None else draw(st.none() | binary)
    return Connect(
        draw(text),
        username=username,
        password=password,
        clean_session=draw(st.booleans()),
        keep_alive=draw(st.integers(0, 65_535)),
        will=draw(st.none() | wills),
    )


publishes_at_qos_0 = st.builds(Publish, topic_names, binary, retain=st.booleans())
publishes_at_qos_1 = st.builds(
    Publish, topic_names, binary, st.just(1), packet_ids, retain=st.booleans(), dup=st.booleans()
)
publishes_at_qos_2 = st.builds(
    Publish, topic_names, binary, st.just(2), packet_ids, retain=st.booleans(), dup=st.booleans()
)
subscribes = st.builds(Subscribe, packet_ids, st.lists(st.tuples(topic_filters(), qos), min_size=1, max_size=4))
unsubscribes = st.builds(Unsubscribe, packet_ids, st.lists(topic_filters(), min_size=1, max_size=4))

# What a client may send behind its CONNECT without a violation, at QoS 0 and 1.
from_client = st.one_of(
    publishes_at_qos_0,
    publishes_at_qos_1,
    subscribes,
    unsubscribes,
    st.builds(Puback, packet_ids),
    st.builds(Pingreq),
)

packets = st.one_of(
    from_client,
    connects(),
    publishes_at_qos_2,
    st.builds(Connack, st.just(0), session_present=st.booleans()),
    st.builds(Connack, st.integers(0, 5)),
    st.builds(Pubrec, packet_ids),
    st.builds(Pubrel, packet_ids),
    st.builds(Pubcomp, packet_ids),
    st.builds(Suback, packet_ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=4)),
    st.builds(Unsuback, packet_ids),
    st.builds(Pingresp),
    st.builds(Disconnect),
)
