"""A signature is on exactly the record's bytes, by a key that is trusted, or it is said what it is."""

import json

import pytest
from keys import new_keys

from stillhouse.errors import RegistryError
from stillhouse.lineage.signing import private_key, public_key, sign, verify

RECORD = b'{"about": "gru"}\n'


@pytest.fixture
def keys():
    private, public = new_keys()
    return private_key(private, "test"), public_key(public, "test")


def test_what_was_signed_is_verified_by_its_key(keys):
    signer, key = keys
    found = verify(sign(RECORD, signer), RECORD, [key])
    assert (found.state, found.key) == ("verified", key.keyid)


def test_signing_again_gives_the_same_bytes(keys):
    assert sign(RECORD, keys[0]) == sign(RECORD, keys[0])


def test_a_record_that_was_never_signed_is_said_to_be_so(keys):
    assert verify(None, RECORD, [keys[1]]).state == "unsigned"


def test_another_key_is_unknown(keys):
    other = public_key(new_keys()[1], "test")
    assert verify(sign(RECORD, keys[0]), RECORD, [other]).state == "unknown key"
    assert verify(sign(RECORD, keys[0]), RECORD, []).state == "unknown key"


@pytest.mark.parametrize(
    "forge",
    [
        lambda plain: plain | {"payload": "e30="},
        lambda plain: plain | {"payloadType": "text/plain"},
        lambda plain: plain | {"signatures": []},
        lambda plain: plain | {"signatures": [{**plain["signatures"][0], "sig": "AAAA"}]},
        lambda plain: {"payload": plain["payload"]},
        lambda plain: [],
    ],
)
def test_a_forged_envelope_is_found(keys, forge):
    signer, key = keys
    plain = json.loads(sign(RECORD, signer))
    assert verify(json.dumps(forge(plain)).encode(), RECORD, [key]).state == "forged"


def test_a_signature_by_another_key_under_a_trusted_name_is_forged(keys):
    key = keys[1]
    plain = json.loads(sign(RECORD, private_key(new_keys()[0], "test")))
    plain["signatures"][0]["keyid"] = key.keyid
    assert verify(json.dumps(plain).encode(), RECORD, [key]).state == "forged"


def test_bytes_that_are_no_envelope_are_forged(keys):
    assert verify(b"\x00", RECORD, [keys[1]]).state == "forged"


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_one_line(pem):
    for read in (private_key, public_key):
        with pytest.raises(RegistryError, match="must be an Ed25519") as caught:
            read(pem, "STILLHOUSE_SIGNING_KEY")
        assert "\n" not in str(caught.value)


def test_a_key_of_another_kind_is_refused():
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(RegistryError, match="must be an Ed25519 private key, found"):
        private_key(pem, "test")
