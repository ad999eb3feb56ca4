"""TLS for the listeners, and the context cache old HTTP libraries profit from.

Source: spec/python-api 2.9, spec/configuration 7 (with fix C21: TLS 1.2 or newer, no CBC-only,
3DES or CAMELLIA suites).
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from autopush.exceptions import InvalidConfig

MOZILLA_INTERMEDIATE_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
        "DHE-RSA-CHACHA20-POLY1305",
    )
)
"""TLS 1.2 suites of Mozilla's "intermediate" recommendation; TLS 1.3 has its own."""

SSL_PROTO = ssl.PROTOCOL_TLS

SSL_MODE_RELEASE_BUFFERS = 0x10
"""Give read and write buffers back while a connection is idle: half the memory of each
connection. OpenSSL's constant; pyOpenSSL doesn't name it."""

OP_NO_RENEGOTIATION = 1 << 30


class TLSFileError(InvalidConfig):
    """A key, certificate or parameter file can't be used; the text is one line that names it."""


class EncryptedKey(ValueError):
    """A private key needs a passphrase, which is never asked for."""


def parse_private_key(pem: bytes) -> Any:
    """Return the private key in PEM data; other things in it don't matter.

    :raises ValueError: there is none that can be used; also :class:`EncryptedKey`
    """
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as exc:
        raise EncryptedKey("the key is encrypted") from exc
    except UnsupportedAlgorithm as exc:
        raise ValueError(str(exc)) from exc


def read_private_key(path: str) -> Any:
    """Return the private key in a PEM file.

    :raises OSError, ValueError: see :func:`parse_private_key`
    """
    with open(path, "rb") as file:
        return parse_private_key(file.read())


def read_certificates(path: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM file.

    :raises OSError, ValueError: it can't be read, or holds none
    """
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificates(file.read())


class AutopushSSLContextFactory(DefaultOpenSSLContextFactory):
    """Server contexts with the settings above.

    :param privateKeyFileName: PEM file of the private key, unencrypted
    :param certificateFileName: PEM file of the certificate chain, leaf first; may be the same
    :param dh_file: PEM file with DH parameters, needed for the DHE suites only
    :param require_peer_certs: ask for a client certificate and accept any; whether it is a known
        one is decided per request
    :raises TLSFileError: a file is missing or unusable; at once, not on first use
    """

    certificate: x509.Certificate
    """The one in use."""

    def __init__(
        self,
        *args: Any,
        dh_file: str | None = None,
        require_peer_certs: bool = False,
        **kwargs: Any,
    ) -> None:
        self.dh_file = dh_file
        self.require_peer_certs = require_peer_certs
        kwargs.setdefault("sslmethod", SSL.TLS_SERVER_METHOD)
        super().__init__(*args, **kwargs)

    def cacheContext(self) -> None:
        """Build the context, once."""
        if self._context is None:
            self.reload()

    def reload(self) -> None:
        """Read the files again, for the connections that begin from now on.

        :raises TLSFileError: one can't be used; then all stays as it was
        """
        key_file, chain_file = self.privateKeyFileName, self.certificateFileName
        if not chain_file:
            raise TLSFileError(f"There is a TLS key, {key_file}, but no certificate file")
        key = load_private_key(key_file)
        chain = load_chain(chain_file)
        context = self._new_context()
        with _blaming("TLS certificate", chain_file):
            context.use_certificate_chain_file(chain_file)
        with _blaming("TLS key", key_file, f"is not the key of {chain_file}"):
            context.use_privatekey(key)
            context.check_privatekey()
        self.certificate = chain[0]
        self._context = context

    def _new_context(self) -> SSL.Context:
        context = SSL.Context(self.sslmethod)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(
            SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION
        )
        context.set_mode(SSL_MODE_RELEASE_BUFFERS)
        context.set_cipher_list(MOZILLA_INTERMEDIATE_CIPHERS.encode())
        if self.dh_file:
            with _blaming("DH parameters", self.dh_file):
                context.load_tmp_dh(self.dh_file)
        # Sessions are resumed with tickets, which the clients keep. Resuming needs a name of the
        # context once client certificates are asked for.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"autopush")
        if self.require_peer_certs:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, self._allow_peer)
        return context

    def _allow_peer(
        self, conn: SSL.Connection, cert: Any, errno: int, depth: int, preverify_ok: int
    ) -> bool:
        """Accept any certificate: handlers compare its fingerprint."""
        return True


def load_private_key(path: str) -> Any:
    """Read an unencrypted PEM key; other things in the file don't matter.

    :raises TLSFileError: it can't be read or is none
    """
    try:
        return read_private_key(path)
    except OSError as exc:
        reason = f"can't be read: {exc.strerror}"
    except EncryptedKey:
        reason = "is encrypted: store it without a passphrase"
    except ValueError:
        reason = "holds no usable private key in PEM format"
    raise TLSFileError(f"TLS key {path} {reason}")


def load_chain(path: str) -> list[x509.Certificate]:
    """Read PEM certificates, at least one.

    :raises TLSFileError: it can't be read or holds none
    """
    try:
        return read_certificates(path)
    except OSError as exc:
        reason = f"can't be read: {exc.strerror}"
    except ValueError:
        reason = "holds no usable certificate in PEM format"
    raise TLSFileError(f"TLS certificate {path} {reason}")


@contextlib.contextmanager
def _blaming(what: str, path: str, reason: str | None = None) -> Iterator[None]:
    """Turn OpenSSL's errors into one line about a file."""
    try:
        yield
    except SSL.Error as exc:
        raise TLSFileError(
            f"{what} {path} {reason or f'can not be used: {openssl_reasons(exc)}'}"
        ) from exc


def openssl_reasons(error: SSL.Error) -> str:
    """Return OpenSSL's own words for an error, without its codes."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [entry[-1] for entry in queue if isinstance(entry, tuple) and entry[-1]]
    return ", ".join(dict.fromkeys(reasons)) or "unreadable file"


# ----------------------------------------------------------------------- ssl.wrap_socket cache


@functools.lru_cache(maxsize=64)
def _cached_context(
    keyfile: str | None,
    certfile: str | None,
    cert_reqs: int,
    ssl_version: int,
    ca_certs: str | None,
    ciphers: str | None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl_version)
    context.check_hostname = False
    context.verify_mode = ssl.VerifyMode(cert_reqs)
    if ca_certs:
        context.load_verify_locations(ca_certs)
    if certfile:
        context.load_cert_chain(certfile, keyfile)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def ssl_wrap_socket_cached(
    sock: socket.socket,
    keyfile: str | None = None,
    certfile: str | None = None,
    server_side: bool = False,
    cert_reqs: int = ssl.CERT_NONE,
    ssl_version: int = SSL_PROTO,
    ca_certs: str | None = None,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    ciphers: str | None = None,
) -> ssl.SSLSocket:
    """Wrap a socket as ``ssl.wrap_socket`` did, with one context per distinct set of settings."""
    context = _cached_context(keyfile, certfile, cert_reqs, ssl_version, ca_certs, ciphers)
    return context.wrap_socket(
        sock,
        server_side=server_side,
        do_handshake_on_connect=do_handshake_on_connect,
        suppress_ragged_eofs=suppress_ragged_eofs,
    )


_original_wrap_socket = getattr(ssl, "wrap_socket", None)


def monkey_patch_ssl_wrap_socket() -> None:
    """Put the cached version in place of ``ssl.wrap_socket``.

    Where Python has no such function (3.12 and later) nothing can call it: nothing is done
    (spec/configuration C23).
    """
    if sys.version_info < (3, 12):
        ssl.wrap_socket = ssl_wrap_socket_cached  # type: ignore[assignment]


def undo_monkey_patch_ssl_wrap_socket() -> None:
    """Restore what :func:`monkey_patch_ssl_wrap_socket` replaced."""
    if sys.version_info < (3, 12):
        ssl.wrap_socket = _original_wrap_socket  # type: ignore[assignment]
