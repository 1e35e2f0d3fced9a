"""Keys from the environment: the one that signs records, and those that are trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import RegistryError
from stillhouse.lineage.signing import private_key, public_key, sign

if TYPE_CHECKING:
    from securesystemslib.signer import Key  # type: ignore[attr-defined]  # it names no __all__

__all__ = ["envelope_of", "trusted_keys"]

#: A private key in PEM, or the path of a file that holds one.
_SIGN = "STILLHOUSE_SIGNING_KEY"
#: Files of public keys in PEM, separated as PATH is.
_VERIFY = "STILLHOUSE_VERIFY_KEYS"


def envelope_of(statement: bytes) -> bytes | None:
    """Return the signed envelope of a statement, ``None`` where the environment names no signing key.

    Raises:
        RegistryError: the environment names no Ed25519 private key.
    """
    given = os.environ.get(_SIGN)
    return None if not given else sign(statement, private_key(_pem(given, _SIGN), _SIGN))


def trusted_keys() -> list[Key]:
    """Return the public keys that the environment trusts, the signing key's own among them.

    Raises:
        RegistryError: the environment names something else.
    """
    files = [name for name in os.environ.get(_VERIFY, "").split(os.pathsep) if name]
    keys: list[Key] = [public_key(_pem(name, _VERIFY), _VERIFY) for name in files]
    if given := os.environ.get(_SIGN):
        keys.append(private_key(_pem(given, _SIGN), _SIGN).public_key)
    return keys


def _pem(given: str, variable: str) -> bytes:
    """Return the key's bytes; what the variable holds is never shown, for it may be the key itself."""
    if "-----BEGIN" in given:
        return given.encode()
    try:
        return Path(given).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise RegistryError(
            f"{variable} must hold a key in PEM or name a file of one, found neither: {reason}"
        ) from None
