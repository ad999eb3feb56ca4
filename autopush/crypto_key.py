"""Documented names of :mod:`autopush.message.crypto_key` (spec/python-api 2.7)."""

from autopush.message.crypto_key import CryptoKey, CryptoKeyException

__all__ = ["CryptoKey", "CryptoKeyException"]
