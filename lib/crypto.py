"""Encryption at rest (AES-GCM with a ring of keys) and keyed hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

VERSION, KEY_ID, NONCE = 1, 4, 12


class DecryptError(Exception):
    """A sealed value does not open: wrong key, wrong row, or damaged. Never carries the value."""


class Ring:
    """A ring of 32-byte keys: the first seals, all open.

    A sealed text is base64 of version (1 byte), key id (4), nonce (12), ciphertext and tag. The
    associated data names the row and column it belongs to, so that a ciphertext copied to another
    row does not open there.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])

    def seal(self, text: str, bound_to: str) -> str:
        """Encrypt `text` for the place named by `bound_to`."""
        nonce = os.urandom(NONCE)
        sealed = self._keys[self._first].encrypt(nonce, text.encode(), bound_to.encode())
        return base64.b64encode(bytes([VERSION]) + self._first + nonce + sealed).decode()

    def open(self, sealed: str, bound_to: str) -> str:
        """Decrypt what `seal` made for the same place; raise DecryptError otherwise."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            if raw[:1] != bytes([VERSION]):
                raise ValueError("unknown version")
            key = self._keys[raw[1 : 1 + KEY_ID]]
            nonce, body = raw[1 + KEY_ID : 1 + KEY_ID + NONCE], raw[1 + KEY_ID + NONCE :]
            return key.decrypt(nonce, body, bound_to.encode()).decode()
        except (ValueError, KeyError, InvalidTag) as error:
            raise DecryptError(f"{bound_to}: {type(error).__name__}") from None

    def is_stale(self, sealed: str) -> bool:
        """Tell whether a sealed text was made by another key than the one that seals now."""
        return base64.b64decode(sealed)[1 : 1 + KEY_ID] != self._first


@cache
def ring() -> Ring:
    """Return the ring of CREDENTIAL_KEYS."""
    keys = [key.get_secret_value() for key in settings.CONFIG.credential_keys]
    return Ring([base64.b64decode(key) for key in keys])


def keyed_hash(text: str, purpose: str) -> str:
    """Return the HMAC-SHA256 (hex, 64 characters) of a secret under KEY_PEPPER, per purpose."""
    pepper = settings.CONFIG.key_pepper.get_secret_value().encode()
    return hmac.new(pepper, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"carousel key id" + key).digest()[:KEY_ID]
