from collections import Counter

import pytest

from muster.domain.allocation import (
    LinkedHub,
    WebhookAnswer,
    candidates,
    choose,
    masked_url,
    webhook_choice,
    webhook_url_problem,
)
from muster.domain.errors import CustomAllocationHubMissingError, NoHubAvailableError


def hub(name: str, *, applies: bool = True, weight: int = 1, latency: int = 0) -> LinkedHub:
    return LinkedHub(
        name=name,
        host_name=f"{name}.net",
        apply_allocation_policy=applies,
        allocation_weight=weight,
        latency=latency,
    )


HUBS = (hub("a", latency=20_000), hub("b", weight=3, latency=5_000), hub("c", applies=False))


def test_candidates() -> None:
    assert [each.name for each in candidates(HUBS, ())] == ["a", "b"], "c does not apply the allocation policy"
    assert [each.name for each in candidates(HUBS, ("C.NET", "a.net"))] == ["a", "c"]


def test_no_candidate() -> None:
    with pytest.raises(NoHubAvailableError, match="No IoT hubs available"):
        candidates((), ())
    with pytest.raises(NoHubAvailableError, match=r"gone\.net"):
        candidates(HUBS, ("gone.net",))


def hashed(registration_id: str, hubs: tuple[LinkedHub, ...]) -> str:
    return choose("hashed", registration_id, hubs).hub.name


def test_hubs_are_chosen_by_weight_and_always_the_same() -> None:
    chosen = [hashed(f"device-{number}", HUBS[:2]) for number in range(4000)]
    assert chosen == [hashed(f"DEVICE-{number}", HUBS[:2]) for number in range(4000)]
    counts = Counter(chosen)
    assert 2.4 < counts["b"] / counts["a"] < 3.7


def test_a_new_hub_moves_only_what_it_must() -> None:
    ids = [f"device-{number}" for number in range(1000)]
    before = {each: hashed(each, HUBS[:2]) for each in ids}
    after = {each: hashed(each, (*HUBS[:2], hub("d"))) for each in ids}
    assert all(after[each] in (before[each], "d") for each in ids)
    assert Counter(after.values())["d"] > 100


def test_the_nearest_hub() -> None:
    choice = choose("geoLatency", "device", HUBS[:2])
    assert choice.hub.name == "b"
    assert "5 ms" in choice.reason
    tied = [choose("geoLatency", f"device-{number}", (hub("x"), hub("y"))) for number in range(50)]
    assert {choice.hub.name for choice in tied} == {"x", "y"}
    assert "tied" in tied[0].reason


def test_a_single_candidate_needs_no_policy() -> None:
    assert "only candidate" in choose("static", "device", HUBS[:1]).reason


def test_what_a_webhook_answers() -> None:
    assert webhook_choice(WebhookAnswer("B.net"), HUBS).hub.name == "b"
    for answer in (WebhookAnswer(), WebhookAnswer("x.net")):
        with pytest.raises(CustomAllocationHubMissingError, match=r"a\.net"):
            webhook_choice(answer, HUBS)


def test_masked_urls() -> None:
    assert masked_url("https://h.net/a?code=1&b=2#f") == "https://h.net/a?****#f"
    assert masked_url("https://h.net/a") == "https://h.net/a"
    assert masked_url("https://[h/a?code=1") == "https://[h/a?****"


@pytest.mark.parametrize(
    "url", ["https://h.net", "HTTP://127.0.0.1:8080/a?code=1", "https://[::1]/", "https://ü.net/ü"]
)
def test_urls_of_webhooks(url: str) -> None:
    assert webhook_url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "h.net",
        "ftp://h.net/",
        "https://",
        "https:///a",
        "https://[h/",
        "https://h:99999/",
        "https://h/a b",
        "https://h:0",
    ],
)
def test_urls_that_no_webhook_has(url: str) -> None:
    assert webhook_url_problem(url)
