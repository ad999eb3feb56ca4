"""Documented names of :mod:`autopush.message.crypto_key` (python-api.md 2.7)."""

from autopush.message.crypto_key import CryptoKey, CryptoKeyException

__all__ = ["CryptoKey", "CryptoKeyException"]
