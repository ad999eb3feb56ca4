"""TLS for the listeners, and the context cache old HTTP libraries profit from.

Source: python-api.md 2.9, configuration.md 7 (with fix C21: TLS 1.2 or newer, no CBC-only,
3DES or CAMELLIA suites).
"""

from __future__ import annotations

import functools
import socket
import ssl
import sys
from typing import Any

from OpenSSL import SSL
from twisted.internet.ssl import DefaultOpenSSLContextFactory

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


class AutopushSSLContextFactory(DefaultOpenSSLContextFactory):
    """Server contexts with the settings above.

    :param privateKeyFileName: PEM file of the private key
    :param certificateFileName: PEM file of the certificate chain, leaf first; may be the same
    :param dh_file: PEM file with DH parameters, needed for the DHE suites only
    :param require_peer_certs: ask for a client certificate and accept any; whether it is a known
        one is decided per request
    :raises OpenSSL.SSL.Error: a file is missing or unusable; at once, not on first use
    """

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
        if self._context is not None:
            return
        context = SSL.Context(self.sslmethod)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(
            SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION
        )
        context.set_mode(SSL_MODE_RELEASE_BUFFERS)
        context.set_cipher_list(MOZILLA_INTERMEDIATE_CIPHERS.encode())
        context.use_certificate_chain_file(self.certificateFileName)
        context.use_privatekey_file(self.privateKeyFileName)
        context.check_privatekey()
        if self.dh_file:
            context.load_tmp_dh(self.dh_file)
        if self.require_peer_certs:
            # Sessions resumed by id need a context name once certificates are asked for.
            context.set_session_id(b"autopush")
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, self._allow_peer)
        self._context = context

    def _allow_peer(
        self, conn: SSL.Connection, cert: Any, errno: int, depth: int, preverify_ok: int
    ) -> bool:
        """Accept any certificate: handlers compare its fingerprint."""
        return True


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
    (configuration.md C23).
    """
    if sys.version_info < (3, 12):
        ssl.wrap_socket = ssl_wrap_socket_cached  # type: ignore[assignment]


def undo_monkey_patch_ssl_wrap_socket() -> None:
    """Restore what :func:`monkey_patch_ssl_wrap_socket` replaced."""
    if sys.version_info < (3, 12):
        ssl.wrap_socket = _original_wrap_socket  # type: ignore[assignment]
