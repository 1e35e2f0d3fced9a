"""Signatures on ``lineage.json``: a DSSE envelope around exactly its bytes, Ed25519.

Source: https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]  # it names no __all__

from stillhouse.errors import RegistryError, one_line

__all__ = ["Signature", "private_key", "public_key", "sign", "verify"]

#: What the envelope carries.
PAYLOAD = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Signature:
    """What was found of a statement's signature."""

    state: Literal["verified", "unsigned", "forged", "unknown key"]
    key: str | None = None
    """Id of the key that signed it."""


def private_key(pem: bytes, where: str) -> CryptoSigner:
    """Return the signer in ``pem``.

    Args:
        pem: an Ed25519 private key, PKCS #8, without a password.
        where: where it came from, for errors.

    Raises:
        RegistryError: it is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RegistryError(
            one_line(f"a signing key must be an Ed25519 private key in PEM: {error} ({where})")
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"a signing key must be an Ed25519 private key, found {type(key).__name__} ({where})")
    return CryptoSigner(key)


def public_key(pem: bytes, where: str) -> SSlibKey:
    """Return the Ed25519 public key in ``pem`` (SubjectPublicKeyInfo).

    Raises:
        RegistryError: it is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RegistryError(one_line(f"a key must be an Ed25519 public key in PEM: {error} ({where})")) from None
    if not isinstance(key, Ed25519PublicKey):
        raise RegistryError(f"a key must be an Ed25519 public key, found {type(key).__name__} ({where})")
    return SSlibKey.from_crypto(key)


def sign(statement: bytes, signer: CryptoSigner) -> bytes:
    """Return the envelope of ``statement``: canonical JSON; the same statement and key give the same bytes."""
    envelope = Envelope(statement, PAYLOAD, {})
    envelope.sign(signer)
    return (json.dumps(envelope.to_dict(), sort_keys=True, indent=1) + "\n").encode("ascii")


def verify(envelope: bytes | None, statement: bytes, keys: Sequence[Key]) -> Signature:
    """Say whether ``envelope`` is a signature on ``statement`` by one of ``keys``.

    Args:
        envelope: what `sign` gave; ``None``: the statement was never signed.
        statement: the bytes of ``lineage.json``.
        keys: public keys that are trusted.
    """
    if envelope is None:
        return Signature("unsigned")
    try:
        found = Envelope.from_dict(json.loads(envelope))
        if found.payload != statement or found.payload_type != PAYLOAD or not found.signatures:
            return Signature("forged")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Signature("forged")
    trusted = [name for name in found.signatures if name in {key.keyid for key in keys}]
    named = (trusted or list(found.signatures))[0]
    if not trusted:
        return Signature("unknown key", named)
    try:
        return Signature("verified", next(iter(found.verify(list(keys), 1))))
    except VerificationError:
        return Signature("forged", named)
