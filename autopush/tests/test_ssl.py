"""TLS contexts: python-api.md 2.9, configuration.md 7 and fix C21."""

from __future__ import annotations

import socket
import ssl
import sys
import threading

import pytest
from OpenSSL import SSL

from autopush.ssl import (
    AutopushSSLContextFactory,
    monkey_patch_ssl_wrap_socket,
    ssl_wrap_socket_cached,
    undo_monkey_patch_ssl_wrap_socket,
)
from autopush.tests.tlsfiles import make_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def handshake(context: SSL.Context, client: ssl.SSLContext):
    """Connect ``client`` to a server with ``context`` in memory.

    Returns (TLS version, suite, certificate the server saw).
    """
    server = SSL.Connection(context, None)
    server.set_accept_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    done = False
    for _ in range(10):
        try:
            peer.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        data = outgoing.read()
        if data:
            server.bio_write(data)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        try:
            incoming.write(server.bio_read(65536))
        except SSL.WantReadError:
            if done:
                break
    assert done
    return (
        peer.version(),
        (peer.cipher() or ("",))[0],
        server.get_peer_certificate(as_cryptography=True),
    )


def client(cert=None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert[1], cert[0])
    return context


def test_tls_13_and_12_are_spoken(files):
    context = AutopushSSLContextFactory(files[0], files[1]).getContext()
    assert handshake(context, client())[0] == "TLSv1.3"
    old = client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    version, suite, _ = handshake(context, old)
    assert version == "TLSv1.2"
    assert "GCM" in suite or "CHACHA20" in suite


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_refused(files):
    context = AutopushSSLContextFactory(files[0], files[1]).getContext()
    old = client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, SSL.Error)):
        handshake(context, old)


def test_files_are_loaded_at_once(files, tmp_path):
    with pytest.raises(SSL.Error):
        AutopushSSLContextFactory(str(tmp_path / "missing"), files[1])
    other_key, _, _ = make_certificate(tmp_path, "other")
    with pytest.raises(SSL.Error):
        AutopushSSLContextFactory(other_key, files[1])
    with pytest.raises(SSL.Error):
        AutopushSSLContextFactory(files[0], files[1], dh_file=str(tmp_path / "missing"))


def test_the_context_is_cached(files):
    factory = AutopushSSLContextFactory(files[0], files[1])
    context = factory.getContext()
    factory.cacheContext()
    assert factory.getContext() is context


def test_any_client_certificate_is_accepted_when_asked_for(files, tmp_path):
    context = AutopushSSLContextFactory(files[0], files[1], require_peer_certs=True).getContext()
    cert = make_certificate(tmp_path, "client")
    seen = handshake(context, client(cert))[2]
    assert seen.subject.rfc4514_string() == "CN=client"
    assert handshake(context, client())[2] is None


def test_no_client_certificate_is_asked_for_otherwise(files, tmp_path):
    context = AutopushSSLContextFactory(files[0], files[1]).getContext()
    assert handshake(context, client(make_certificate(tmp_path, "client")))[2] is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrap_socket_cached_talks_and_caches(files):
    ours, theirs = socket.socketpair()
    got = []

    def serve():
        with ssl_wrap_socket_cached(
            theirs, keyfile=files[0], certfile=files[1], server_side=True
        ) as wrapped:
            got.append(wrapped.context)
            wrapped.sendall(wrapped.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with ssl_wrap_socket_cached(ours) as wrapped:
        wrapped.sendall(b"hi")
        assert wrapped.recv(10) == b"hi"
        first = wrapped.context
    thread.join()
    with socket.socket() as plain:
        again = ssl_wrap_socket_cached(plain, do_handshake_on_connect=False)
        assert again.context is first
        assert again.context is not got[0]
        again.close()


def test_monkey_patch_and_undo():
    before = getattr(ssl, "wrap_socket", None)
    monkey_patch_ssl_wrap_socket()
    try:
        if sys.version_info < (3, 12):
            assert ssl.wrap_socket is ssl_wrap_socket_cached
        else:
            assert not hasattr(ssl, "wrap_socket")
    finally:
        undo_monkey_patch_ssl_wrap_socket()
    assert getattr(ssl, "wrap_socket", None) is before
