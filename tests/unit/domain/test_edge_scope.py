"""Scopes of edge devices and their children (hub-service.md 2.2)."""

from typing import Any

import pytest

from muster.domain.device import Identity
from muster.domain.edge_scope import Scopes, scopes_after
from muster.domain.errors import ArgumentInvalidError

NOW = 1_790_000_000_000_000
TICKS = "639255968000000000"
OWN = f"ms-azure-iot-edge://gate-{TICKS}"
PARENT = "ms-azure-iot-edge://plant-1"


def after(stored: Identity | None = None, **asked: Any) -> Scopes:
    wanted = {"iot_edge": True, "device_scope": None, "parent_scopes": None, "device_id": "gate", "now": NOW, **asked}
    return scopes_after(stored, **wanted)


def stored(*, iot_edge: bool, scope: str | None, parents: tuple[str, ...] = ()) -> Identity:
    return Identity(
        device_id="gate",
        generation_id="1",
        etag=1,
        status="enabled",
        authentication_type="sas",
        iot_edge=iot_edge,
        device_scope=scope,
        parent_scopes=parents,
    )


def test_an_edge_device_gets_a_scope_of_its_own() -> None:
    assert after() == Scopes(OWN)
    assert after(device_scope="ms-azure-iot-edge://mine") == Scopes(OWN), "what a client sends is ignored"
    assert after(parent_scopes=(PARENT,)) == Scopes(OWN, (PARENT,))


def test_another_device_stands_in_the_scope_of_its_parent() -> None:
    assert after(iot_edge=False) == Scopes()
    assert after(iot_edge=False, device_scope=PARENT) == Scopes(PARENT, (PARENT,))
    assert after(iot_edge=False, parent_scopes=(PARENT,)) == Scopes(), "parentScopes alone are ignored"


def test_a_child_may_change_its_parent_or_leave_it() -> None:
    child = stored(iot_edge=False, scope=PARENT, parents=(PARENT,))
    assert after(child, iot_edge=False, device_scope=OWN, parent_scopes=(PARENT,)) == Scopes(OWN, (OWN,))
    assert after(child, iot_edge=False) == Scopes()


def test_the_scope_of_an_edge_device_is_immutable() -> None:
    edge = stored(iot_edge=True, scope=OWN, parents=(PARENT,))
    assert after(edge, device_scope=OWN, parent_scopes=(PARENT,)) == Scopes(OWN, (PARENT,))
    assert after(edge, device_scope=OWN, parent_scopes=()) == Scopes(OWN)
    assert after(edge, device_scope=OWN) == Scopes(OWN), "left out detaches as well"
    for scope in (None, "", PARENT):
        with pytest.raises(ArgumentInvalidError, match="Device scope is immutable"):
            after(edge, device_scope=scope)


def test_a_device_becomes_an_edge_device_and_ceases_to_be_one() -> None:
    child = stored(iot_edge=False, scope=PARENT, parents=(PARENT,))
    assert after(child, device_scope=PARENT) == Scopes("ms-azure-iot-edge://gate"), "without a tick suffix"
    edge = stored(iot_edge=True, scope=OWN, parents=(PARENT,))
    assert after(edge, iot_edge=False, device_scope=OWN, parent_scopes=(PARENT,)) == Scopes(), "it loses its parent"


@pytest.mark.parametrize("scopes", [(PARENT, OWN), ("a\0b",)])
def test_parents_that_are_refused(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentInvalidError):
        after(parent_scopes=scopes)
