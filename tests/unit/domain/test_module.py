"""Rules of module identities (hub-service.md 2.3)."""

import pytest

from muster.domain.device import AuthenticationBody, ConnectionTimes, Identity
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.module import (
    ModuleBody,
    module_view,
    read_module_authentication,
    require_client_may_create,
    require_module_id,
    require_same_ids,
)

RANDOM = (bytes(32), bytes([1]) * 32)


@pytest.mark.parametrize("module_id", ["", "a/b", "a b", "ü", "x" * 129])
def test_illegal_ids(module_id: str) -> None:
    with pytest.raises(ArgumentInvalidError):
        require_module_id(module_id)


def test_ids_with_a_dollar_in_front_are_the_hubs() -> None:
    require_client_may_create("a$")
    with pytest.raises(ArgumentInvalidError, match=r"\$edgeAgent"):
        require_client_may_create("$edgeAgent")


def test_the_ids_of_the_body_are_those_of_the_path() -> None:
    require_same_ids("d", "m", ModuleBody(module_id="m"))
    require_same_ids("d", "m", ModuleBody(module_id="m", device_id="d"))
    with pytest.raises(ArgumentNullError):
        require_same_ids("d", "m", ModuleBody())
    for body in (ModuleBody(module_id="M"), ModuleBody(module_id="m", device_id="D")):
        with pytest.raises(ArgumentInvalidError):
            require_same_ids("d", "m", body)


def test_none_is_taken_as_keys() -> None:
    made = read_module_authentication(AuthenticationBody(type="none"), RANDOM)
    assert (made.type, bool(made.primary_key)) == ("sas", True)
    assert read_module_authentication(None, RANDOM).type == "sas"
    assert read_module_authentication(AuthenticationBody(type="certificateAuthority"), RANDOM).primary_key is None


def test_a_module_has_no_status() -> None:
    module = Identity(
        device_id="d", module_id="m", generation_id="1", etag=7, status="enabled", authentication_type="none"
    )
    view = module_view(module, ConnectionTimes())
    assert (view["deviceId"], view["moduleId"], view["managedBy"]) == ("d", "m", None)
    assert view["authentication"]["type"] == "none"
    assert "status" not in view
