import pytest

from muster.pki.expiry import LIGHTS, State, certificate_state, days_left

DAY = 86_400_000_000
NOW = 1_780_315_200_000_000


def state(life, left, **facts):
    return certificate_state(NOW + (left - life) * DAY, NOW + left * DAY, NOW, **facts)


@pytest.mark.parametrize(
    ("life", "left", "facts", "expected"),
    [
        (365, 31, {}, State.ACTIVE),
        (365, 30, {}, State.EXPIRING),
        (365, 0, {}, State.EXPIRING),
        (365, -1, {}, State.EXPIRED),
        (365, 366, {}, State.NOT_YET_VALID),
        (10, 3, {}, State.ACTIVE),
        (10, 2, {}, State.EXPIRING),
        (3650, 91, {"is_ca": True}, State.ACTIVE),
        (3650, 90, {"is_ca": True}, State.EXPIRING),
        (365, 100, {"revoked": True}, State.REVOKED),
        (365, -1, {"revoked": True}, State.REVOKED),
        (365, 100, {"replaced": True}, State.REPLACED),
        (365, -1, {"replaced": True}, State.EXPIRED),
    ],
)
def test_states(life, left, facts, expected):
    assert state(life, left, **facts) is expected


def test_both_ends_belong_to_the_validity():
    assert certificate_state(NOW, NOW + DAY, NOW) is State.ACTIVE
    assert certificate_state(NOW - DAY, NOW, NOW) is State.EXPIRING
    assert certificate_state(NOW - DAY, NOW - 1, NOW) is State.EXPIRED


def test_every_state_has_a_light():
    assert set(LIGHTS) == set(State)
    assert set(LIGHTS.values()) == {"green", "yellow", "red", "grey"}


@pytest.mark.parametrize(("left", "days"), [(0, 0), (DAY - 1, 0), (DAY, 1), (-1, -1), (-DAY, -1), (-DAY - 1, -2)])
def test_whole_days(left, days):
    assert days_left(NOW + left, NOW) == days
