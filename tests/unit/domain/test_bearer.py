"""Bearer tokens: what is taken, and in which words everything else is refused."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from muster.domain.bearer import CLOCK_SKEW, BearerTokenError, sign_bearer, verify_bearer
from muster.domain.timestamp import DAY, HOUR, SECOND

NOW = 1_790_000_000 * SECOND
KEY = bytes(range(32))


def claims(**more):
    now = NOW // SECOND
    return {
        "iss": "muster",
        "aud": "https://management.azure.com/",
        "sub": "ann",
        "iat": now,
        "exp": now + 3600,
        **more,
    }


def header(key=KEY, algorithm="HS256", **more):
    return f"Bearer {jwt.encode(claims(**more), key, algorithm)}"


def refusal(authorization, now=NOW):
    with pytest.raises(BearerTokenError) as caught:
        verify_bearer(authorization, KEY, now)
    return str(caught.value)


def test_a_token_names_its_subject():
    assert verify_bearer(f"Bearer {sign_bearer(KEY, 'ann', NOW, HOUR)}", KEY, NOW) == "ann"


def test_what_is_signed_is_what_any_library_reads():
    token = sign_bearer(KEY, "ann", NOW, HOUR)
    read = jwt.decode(
        token,
        KEY,
        ["HS256"],
        audience="https://management.azure.com/",
        issuer="muster",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert read == claims()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(scheme):
    assert verify_bearer(f"{scheme} {sign_bearer(KEY, 'ann', NOW, HOUR)}", KEY, NOW) == "ann"


@pytest.mark.parametrize(
    "audience",
    [
        "https://management.azure.com",
        "https://management.azure.com/",
        "https://management.azure.com/.default",
        "https://management.azure.com//.default",
        "HTTPS://Management.Azure.com",
        ["https://other.example", "https://management.azure.com/"],
    ],
)
def test_every_spelling_of_the_audience_is_taken(audience):
    assert verify_bearer(header(aud=audience), KEY, NOW) == "ann"


def test_a_token_lives_until_its_expiry():
    assert verify_bearer(header(), KEY, NOW + HOUR - 1) == "ann"
    assert refusal(header(), NOW + HOUR) == "it expired 2026-09-21T15:13:20.0000000Z"
    assert "expired" in refusal(header(), NOW + 400 * DAY)


def test_the_clock_of_the_signer_may_be_a_little_ahead():
    seconds = CLOCK_SKEW // SECOND
    assert verify_bearer(header(iat=NOW // SECOND + seconds), KEY, NOW) == "ann"
    assert "in the future" in refusal(header(iat=NOW // SECOND + seconds + 1))


def test_times_beyond_any_calendar_are_no_trouble():
    assert verify_bearer(header(exp=1e300), KEY, NOW) == "ann"
    assert "expired" in refusal(header(exp=-1e300))


def test_an_unsigned_token_is_never_taken():
    unsigned = jwt.encode(claims(), None, "none")
    assert refusal(f"Bearer {unsigned}") == "it is not signed with HS256, the only algorithm that is taken"


@pytest.mark.parametrize("spelling", ["none", "None", "NONE", "nOnE", ""])
def test_no_spelling_of_none_is_taken(spelling):
    parts = [json.dumps(part).encode() for part in ({"alg": spelling, "typ": "JWT"}, claims())]
    encoded = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts]
    assert refusal(f"Bearer {'.'.join(encoded)}.")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_hash_is_not_taken(algorithm):
    assert "HS256" in refusal(header(KEY * 2, algorithm))


def test_a_public_key_is_not_taken_for_a_secret():
    assert "HS256" in refusal(header(ec.generate_private_key(ec.SECP256R1()), "ES256"))


def test_another_key_is_told():
    assert "another server's token" in refusal(header(bytes(32)))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"iss": "https://sts.windows.net/"}, "issuer (iss) is 'https://sts.windows.net/'"),
        ({"aud": "https://graph.microsoft.com"}, "audience (aud) is 'https://graph.microsoft.com'"),
        ({"aud": []}, "audience (aud) is ''"),
        ({"aud": 7}, "claims cannot be read"),
        ({"exp": "soon"}, "claims cannot be read"),
        ({"sub": None}, "claims cannot be read"),
    ],
)
def test_a_wrong_claim_is_named(more, part):
    token = jwt.api_jws.PyJWS().encode(json.dumps(claims(**more)).encode(), KEY, "HS256")
    assert part in refusal(f"Bearer {token}")


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp"])
def test_a_missing_claim_is_named(name):
    rest = {key: value for key, value in claims().items() if key != name}
    token = jwt.api_jws.PyJWS().encode(json.dumps(rest).encode(), KEY, "HS256")
    assert name in refusal(f"Bearer {token}")


@pytest.mark.parametrize(
    ("authorization", "part"),
    [
        ("", "no Authorization header"),
        ("SharedAccessSignature sr=a&sig=b&se=1", "does not begin with 'Bearer'"),
        ("Bearer", "not a JSON Web Token"),
        ("Bearer a.b.c", "not a JSON Web Token"),
        ("Bearer é", "not a JSON Web Token"),
    ],
)
def test_what_is_no_token_is_told(authorization, part):
    assert part in refusal(authorization)


def test_a_changed_token_is_refused():
    token = sign_bearer(KEY, "ann", NOW, HOUR)
    head, _, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
    assert "another server's token" in refusal(f"Bearer {head}.{forged}.{signature}")
