import pytest

from muster.cli.failure import CommandError


@pytest.fixture
def fleet(plant):
    plant.run("issue --prefix dev- --count 2")
    return plant


def lines(result):
    return {line.split()[0]: line for line in result.stdout.splitlines() if line}


def test_list(fleet):
    shown = lines(fleet.run("list"))
    assert list(shown) == ["CA", "plant", "line-a", "Name", "dev-01", "dev-02"]
    assert "itself" in shown["plant"]
    assert "green: active, 3649 days left" in shown["line-a"]
    assert shown["line-a"].split()[-2:] == ["2", "0"]
    assert "green: active, 364 days left" in shown["dev-01"]


def test_a_list_of_the_future(fleet):
    for at, expected in (("+350d", "yellow: expires soon, 14 days left"), ("+380d", "red: expired 16 days ago")):
        assert expected in lines(fleet.run(f"list --at {at}"))["dev-01"]
    assert "yellow: not yet valid" in lines(fleet.run("list --at 2020-01-01"))["dev-01"]
    assert fleet.run("list --at tomorrow").exit_code == 2


def test_a_list_after_revocation_and_replacement(fleet):
    fleet.run("revoke dev-01")
    fleet.run("issue dev-02 --force")
    shown = fleet.run("list").stdout
    assert shown.count("dev-02") == 1
    assert shown.count("red: revoked") == 1
    every = fleet.run("list --all").stdout
    assert "grey: replaced, 364 days left" in every
    assert every.count("dev-02") == 2


def test_when_the_next_revocation_list_is_due(fleet):
    fleet.run("crl --days 1")
    assert "(overdue)" not in fleet.run("list").stdout
    assert "(overdue)" in lines(fleet.run("list --at +2d"))["line-a"]


def test_a_list_of_one_ca(fleet):
    fleet.run("issue other --issuer plant")
    shown = lines(fleet.run("list --issuer plant"))
    assert list(shown) == ["CA", "plant", "Name", "other"]
    with pytest.raises(CommandError, match="no CA 'nobody'"):
        fleet.run("list --issuer nobody")


def test_a_list_as_json(fleet):
    fleet.run("crl")
    document = fleet.json("list")
    plant, line = document["authorities"]
    assert (plant["name"], plant["issuer"], plant["light"], plant["revocationList"]) == ("plant", None, "green", None)
    assert (line["issuer"], line["issued"], line["revocationList"]["number"]) == ("plant", 2, 1)
    assert [one["name"] for one in document["certificates"]] == ["dev-01", "dev-02"]
    assert document["certificates"][0]["daysLeft"] == 364


def test_nothing_to_list(commands):
    with pytest.raises(CommandError, match="there is no CA in ca"):
        commands.run("list")
    assert commands.json("list") == {"authorities": [], "certificates": []}


def test_a_ca_alone(commands):
    commands.run("init plant")
    assert len(commands.run("list").stdout.splitlines()) == 2


def test_a_ca_that_was_revoked(fleet):
    fleet.run("revoke line-a")
    assert "red: revoked" in lines(fleet.run("list"))["line-a"]
    assert fleet.json("show line-a")["state"] == "revoked"


def test_show_a_ca(fleet):
    shown = fleet.run("show line-a").stdout
    for text in ("Below              : plant", "2, of them revoked: 0", "none yet", "ca/line-a/private.key", "CA:TRUE"):
        assert text in shown
    fleet.run("crl --issuer line-a")
    assert "number 1, next due" in fleet.run("show line-a").stdout
    assert fleet.json("show plant")["isCa"] is True


def test_show_a_certificate_and_its_history(fleet):
    assert "Other certificates" not in fleet.run("show dev-01").stdout
    fleet.run("revoke dev-01 --reason superseded")
    fleet.run("issue dev-01 --force")
    shown = fleet.run("show dev-01").stdout
    assert "Standing           : green: active, 364 days left" in shown
    assert "Other certificates of dev-01:" in shown
    newest, older = fleet.json("show dev-01")
    assert (newest["state"], older["state"]) == ("active", "revoked")
    assert "superseded" in fleet.run(f"show {older['serialNumber']}").stdout


def test_show_what_is_not_there(fleet):
    with pytest.raises(CommandError, match="there is no certificate 'nobody'"):
        fleet.run("show nobody")


def test_profiles(commands):
    assert list(lines(commands.run("profiles")))[1:] == [
        "root-ca",
        "intermediate-ca",
        "device",
        "server",
        "verification",
    ]
    (commands.path / "ca").mkdir()
    (commands.path / "ca/profiles.toml").write_text("[gateway]\nlike = 'device'\n")
    assert commands.json("profiles")["gateway"]["key"] == "ec-p256"
    (commands.path / "ca/profiles.toml").write_text("[gateway]\nlike = 'devise'\n")
    with pytest.raises(CommandError, match="did you mean 'device'"):
        commands.run("profiles")
