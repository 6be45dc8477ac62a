import re

import msgspec
import pytest

from muster.domain.registration_id import registration_id_problem
from muster.pki.certificate_profiles import (
    PROFILES,
    CertificateProfile,
    ProfileError,
    find_profile,
    profile_problem,
    read_profiles,
)
from muster.pki.names import read_alternative_name

DEVICE = PROFILES["device"]


def changed(name, **changes):
    return msgspec.structs.replace(PROFILES[name], **changes)


@pytest.mark.parametrize("name", PROFILES)
def test_no_built_in_profile_contradicts_itself(name):
    assert profile_problem(PROFILES[name]) is None


def test_the_built_in_profiles():
    assert set(PROFILES) == {"root-ca", "intermediate-ca", "device", "server", "verification"}
    assert [(one.ca, one.path_length) for one in PROFILES.values()] == [(True, None), (True, 0), *[(False, None)] * 3]
    assert DEVICE.extended_key_usage == PROFILES["verification"].extended_key_usage == ("clientAuth",)
    assert PROFILES["server"].days <= 398


def test_a_profile_that_does_not_exist():
    assert find_profile(PROFILES, "device") is DEVICE
    with pytest.raises(ProfileError, match="no profile 'devise'; did you mean 'device'"):
        find_profile(PROFILES, "devise")
    with pytest.raises(ProfileError, match="take one of root-ca, "):
        find_profile(PROFILES, "xyz")


@pytest.mark.parametrize("name", ["dev-01", "a.b:c_d,e", "A" * 64, "-"])
def test_devices_are_named_as_they_register(name):
    assert DEVICE.takes_common_name(name)
    assert registration_id_problem(name) is None


@pytest.mark.parametrize("name", ["", "dev 01", "dev-01\n", "dév", "a/b", "A" * 65])
def test_names_that_no_device_can_register_with(name):
    assert not DEVICE.takes_common_name(name)
    assert len(name) == 65 or registration_id_problem(name) is not None


def test_verification_codes():
    assert PROFILES["verification"].takes_common_name("75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3")
    assert not PROFILES["verification"].takes_common_name("dev-01")


@pytest.mark.parametrize(
    ("profile", "alternative", "name", "taken"),
    [
        ("device", "DNS:dev-01", "dev-01", True),
        ("device", "DNS:DEV-01", "dev-01", True),
        ("device", "DNS:dev-02", "dev-01", False),
        ("device", "IP:10.0.0.1", "dev-01", False),
        ("server", "DNS:plant.example", "other.example", True),
        ("server", "IP:10.0.0.1", "plant.example", True),
        ("server", "URI:urn:x", "plant.example", False),
        ("root-ca", "DNS:plant.example", "plant.example", False),
    ],
)
def test_alternative_names(profile, alternative, name, taken):
    assert PROFILES[profile].takes_alternative_name(read_alternative_name(alternative), name) is taken


def test_a_name_in_a_pattern_stands_for_itself():
    profile = changed("device", alternative_names=("URI:urn:{name}",))
    assert profile.takes_alternative_name(read_alternative_name("URI:urn:[a]*"), "[a]*")
    assert not profile.takes_alternative_name(read_alternative_name("URI:urn:ab"), "[a]*")


def test_the_host_name_is_an_alternative_name():
    profile = changed("server", alternative_names=())
    assert profile.takes_alternative_name(read_alternative_name("plant.example"), "plant.example")
    assert profile.takes_alternative_name(read_alternative_name("::1"), "::1")
    assert not profile.takes_alternative_name(read_alternative_name("other.example"), "plant.example")


def test_only_rsa_keys_encipher_keys():
    assert DEVICE.key_usage_for(rsa=True) == ("digitalSignature", "keyEncipherment")
    assert DEVICE.key_usage_for(rsa=False) == ("digitalSignature",)


def test_profiles_of_users_stand_beside_the_built_in_ones():
    profiles = read_profiles(
        """
        [gateway]
        like = "device"
        days = 30
        extended_key_usage = ["clientAuth", "serverAuth", "1.2.3.4"]
        alternative_names = ["DNS:*.plant.example"]
        crl_urls = ["http://plant.example/ca.crl"]

        [small-gateway]
        like = "gateway"
        key = "ed25519"

        [device]
        like = "device"
        subject = "O=Contoso, C=NL"
        """
    )
    assert list(profiles) == [*PROFILES, "gateway", "small-gateway"]
    assert (profiles["small-gateway"].days, profiles["small-gateway"].key) == (30, "ed25519")
    assert [one.dotted_string for one in profiles["gateway"].usage_identifiers()][-1] == "1.2.3.4"
    assert profiles["device"] == changed("device", subject="O=Contoso, C=NL")
    assert read_profiles("") == PROFILES


def test_a_whole_profile():
    fields = 'description = "x"\ndays = 1\nkey = "ec-p256"\nkey_usage = ["digitalSignature"]'
    assert read_profiles(f"[mine]\n{fields}")["mine"] == CertificateProfile(
        description="x", days=1, key="ec-p256", key_usage=("digitalSignature",)
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "it is no TOML"),
        ("days = 3", "'days' stands outside of a table"),
        ("[x]\ndays = 3", "profile 'x': Object missing required field"),
        ("[x]\nlike = 'devise'", "did you mean 'device'"),
        ("[x]\nlike = 'device'\nday = 3", "profile 'x': there is no 'day'; did you mean 'days'"),
        ("[x]\nlike = 'device'\ndays = 'a'", "profile 'x': Expected `int`"),
        ("[x]\nlike = 'device'\ndays = 0", "days has to be 1 or more"),
        ("[x]\nlike = 'device'\nkey = 'ec-p255'", "no kind of key; did you mean"),
        ("[x]\nlike = 'device'\nkey_usage = ['digitalSignatur']", "did you mean 'digitalSignature'"),
        ("[x]\nlike = 'device'\nkey_usage = []", "something that every key can do"),
        ("[x]\nlike = 'device'\nkey_usage = ['keyEncipherment']", "something that every key can do"),
        ("[x]\nlike = 'device'\nkey_usage = ['keyAgreement', 'encipherOnly']", "neither encipherOnly"),
        ("[x]\nlike = 'device'\nextended_key_usage = ['client']", "dotted identifiers"),
        ("[x]\nlike = 'device'\ncommon_name = '('", "no regular expression"),
        ("[x]\nlike = 'device'\nsubject = 'Contoso'", "is no part of a subject"),
        ("[x]\nlike = 'device'\ncrl_urls = ['é']", "in ASCII"),
        ("[x]\nlike = 'device'\npermitted = ['DNS:x']", "only a CA can limit names"),
        ("[x]\nlike = 'device'\npath_length = 0", "only a CA has a path_length"),
        ("[x]\nlike = 'device'\nkey_usage = ['keyCertSign', 'digitalSignature']", "only a CA may have"),
        ("[x]\nlike = 'root-ca'\npath_length = -1", "0 or more"),
        ("[x]\nlike = 'root-ca'\nkey_usage = ['cRLSign']", "a CA needs the key usage keyCertSign"),
        ("[x]\nlike = 'root-ca'\nexcluded = ['x']", "is no limit of names"),
    ],
)
def test_what_is_wrong_with_a_profile(text, reason):
    with pytest.raises(ProfileError, match=re.escape(reason)):
        read_profiles(text)
