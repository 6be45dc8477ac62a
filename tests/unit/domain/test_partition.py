import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.partition import partition_of


@pytest.mark.parametrize(
    ("device_id", "partitions"),
    [
        ("device1", (1, 2, 4, 9, 18)),
        ("mydevice", (0, 0, 1, 3, 6)),
        ("MyDevice", (0, 0, 1, 3, 6)),
        ("dev-0001", (0, 1, 3, 7, 15)),
        ("thermostat-42", (0, 1, 3, 6, 12)),
    ],
)
def test_the_vectors_of_real_clients(device_id: str, partitions: tuple[int, ...]) -> None:
    assert tuple(partition_of(device_id, count) for count in (2, 4, 8, 16, 32)) == partitions


@given(st.text(max_size=128), st.integers(2, 32))
def test_every_id_has_a_partition(device_id: str, count: int) -> None:
    assert 0 <= partition_of(device_id, count) < count
