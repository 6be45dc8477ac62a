import pytest

from muster.domain.registration_id import registration_id_key, registration_id_problem


@pytest.mark.parametrize("name", ["a", "raspberrypi-b", "sn-007:ab.c_d,e", "UPPER", "-x-", "x" * 128])
def test_legal(name):
    assert registration_id_problem(name) is None


@pytest.mark.parametrize("illegal", ["/", "\\", " ", "%", "#", "?", "+", "é", "\n", "\0", "'", "$", "*"])
def test_illegal_characters_are_named(illegal):
    problem = registration_id_problem(f"dev{illegal}01")
    assert problem == f"it has the character {illegal!a}; letters, digits and - . _ : , are allowed"


def test_an_empty_one():
    assert registration_id_problem("") == "it is empty"


def test_one_that_is_too_long():
    assert registration_id_problem("x" * 129) == "it has 129 characters; 128 are allowed"


def test_case_does_not_count():
    assert registration_id_key("Dev-01") == registration_id_key("dEV-01")
    assert registration_id_key("dev-01") != registration_id_key("dev-1")


def test_letters_that_only_look_alike_are_others():
    assert registration_id_key("\u212apump") != registration_id_key("kpump")
