"""The laws of MQTT topic filters (section 4.7)."""

import re

from hypothesis import given

from muster.wire.mqtt_topics import matches, topic_filter_fault, topic_name_fault
from tests.property.mqtt_strategies import topic_filters, topic_names


def by_regular_expression(topic_filter: bytes, name: bytes) -> bool:
    """Section 4.7 said in another way."""
    if name.startswith(b"$") and topic_filter[:1] in (b"+", b"#"):
        return False
    pattern = re.escape(topic_filter).replace(rb"\+", rb"[^/]*")
    if pattern == rb"\#":
        pattern = rb".*"
    elif pattern.endswith(rb"/\#"):
        pattern = pattern.removesuffix(rb"/\#") + rb"(/.*)?"
    return re.fullmatch(pattern, name, re.DOTALL) is not None


@given(topic_filters(), topic_names)
def test_matching_is_what_a_regular_expression_says(topic_filter, name):
    assert topic_filter_fault(topic_filter) is None
    assert matches(topic_filter, name) == by_regular_expression(topic_filter, name)


@given(topic_names)
def test_a_name_matches_itself_and_the_whole_tree_unless_it_starts_with_a_dollar(name):
    assert topic_name_fault(name) is None
    assert matches(name, name)
    assert matches(b"#", name) == (not name.startswith(b"$"))


@given(topic_names, topic_names)
def test_a_filter_without_wildcards_matches_nothing_else(one, other):
    assert matches(one, other) == (one == other)


@given(topic_names)
def test_a_multi_level_wildcard_matches_the_parent_and_all_below(name):
    assert matches(name + b"/#", name)
    assert matches(name + b"/#", name + b"/x/y")
    assert not matches(name + b"/#", name + b"x")


@given(topic_names)
def test_a_single_level_wildcard_takes_the_place_of_any_one_level(name):
    levels = name.split(b"/")
    for index in range(1 if name.startswith(b"$") else 0, len(levels)):
        topic_filter = b"/".join([*levels[:index], b"+", *levels[index + 1 :]])
        assert matches(topic_filter, name)
        assert not matches(topic_filter, name + b"/x")
