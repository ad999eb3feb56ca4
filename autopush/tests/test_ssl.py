"""TLS contexts: spec/python-api 2.9, spec/configuration 7 and fix C21."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from autopush.app.starterrors import start_error_text
from autopush.ssl import (
    SSL_MODE_RELEASE_BUFFERS,
    AutopushSSLContextFactory,
    TLSFileError,
    monkey_patch_ssl_wrap_socket,
    ssl_wrap_socket_cached,
    undo_monkey_patch_ssl_wrap_socket,
)
from autopush.tests.tlsfiles import make_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def rsa_files(tmp_path_factory):
    key = rsa.generate_private_key(65537, 2048)
    return make_certificate(tmp_path_factory.mktemp("rsa"), key=key)[:2]


FFDHE2048 = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""RFC 7919's group of 2,048 bits."""


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


def refusal(*args, **kwargs):
    with pytest.raises(TLSFileError) as caught:
        AutopushSSLContextFactory(*args, **kwargs)
    text = start_error_text(caught.value)
    assert text == str(caught.value)  # one line
    return text


def test_files_are_loaded_at_once(files, tmp_path):
    missing = str(tmp_path / "missing")
    for args in ((missing, files[1]), (files[0], missing)):
        assert f"{missing} can't be read: No such file or directory" in refusal(*args)
    assert missing in refusal(files[0], files[1], dh_file=missing)
    assert "no certificate file" in refusal(files[0], "")


def test_texts_name_the_file_and_what_is_wrong(files, tmp_path):
    other_key, _, _ = make_certificate(tmp_path, "other")
    text = refusal(other_key, files[1])
    assert text == f"TLS key {other_key} is not the key of {files[1]}"
    assert "no usable private key" in refusal(files[1], files[1])
    assert "no usable certificate" in refusal(files[0], files[0])
    assert "DH parameters" in refusal(files[0], files[1], dh_file=files[1])


def test_an_encrypted_key_is_refused_instead_of_asked_for(files, tmp_path):
    key = load_pem_private_key(Path(files[0]).read_bytes(), None)
    path = tmp_path / "encrypted"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    assert "is encrypted" in refusal(str(path), files[1])


def test_key_and_certificate_may_be_in_one_file(files, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(Path(files[1]).read_bytes() + Path(files[0]).read_bytes())
    context = AutopushSSLContextFactory(str(both), str(both)).getContext()
    assert handshake(context, client())[0] == "TLSv1.3"


def test_dh_parameters_enable_the_dhe_suites(rsa_files, tmp_path):
    only_dhe = client()
    only_dhe.maximum_version = ssl.TLSVersion.TLSv1_2
    only_dhe.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, SSL.Error)):
        handshake(AutopushSSLContextFactory(*rsa_files).getContext(), only_dhe)
    dh_file = tmp_path / "dh.pem"
    dh_file.write_text(FFDHE2048)
    context = AutopushSSLContextFactory(*rsa_files, dh_file=str(dh_file)).getContext()
    assert handshake(context, only_dhe)[1] == "DHE-RSA-AES128-GCM-SHA256"


def test_buffers_of_idle_connections_are_released(files):
    context = AutopushSSLContextFactory(files[0], files[1]).getContext()
    assert context.set_mode(0) & SSL_MODE_RELEASE_BUFFERS


# ------------------------------------------------------------------------------------- reload


@pytest.fixture
def changing(files, tmp_path):
    """Files a test may change: (directory, key file, certificate file)."""
    key, cert = tmp_path / "key", tmp_path / "cert"
    shutil.copy(files[0], key)
    shutil.copy(files[1], cert)
    return tmp_path, str(key), str(cert)


def test_reload_takes_the_new_files(changing):
    directory, key, cert = changing
    factory = AutopushSSLContextFactory(key, cert)
    new = make_certificate(directory, "new")
    os.replace(new[0], key)
    os.replace(new[1], cert)
    assert factory.certificate.subject.rfc4514_string() == "CN=localhost"
    factory.reload()
    assert factory.certificate.subject.rfc4514_string() == "CN=new"
    assert certificate_of(factory.getContext()) == factory.certificate


@pytest.mark.parametrize("broken", ["key", "cert", "both"])
def test_reload_of_broken_files_keeps_what_there_was(changing, broken):
    directory, key, cert = changing
    factory = AutopushSSLContextFactory(key, cert)
    context, certificate = factory.getContext(), factory.certificate
    new = make_certificate(directory, "new")
    if broken == "key":  # only one of the two has been replaced yet
        os.replace(new[0], key)
    elif broken == "cert":
        os.replace(new[1], cert)
    else:
        Path(cert).write_text("")
    with pytest.raises(TLSFileError):
        factory.reload()
    assert (factory.getContext(), factory.certificate) == (context, certificate)
    assert certificate_of(context) == certificate


def certificate_of(context):
    """What a client gets."""
    server, peer = SSL.Connection(context, None), SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    server.set_accept_state()
    peer.set_connect_state()
    for _ in range(4):
        for one, other in ((peer, server), (server, peer)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return peer.get_peer_certificate(as_cryptography=True)


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
    undo_monkey_patch_ssl_wrap_socket()  # an application of another test may have been left set up
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
