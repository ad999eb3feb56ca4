"""A certificate for one run."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from autopush.app.certificate import make_certificate
from autopush.testing import PushService
from autopush.tests.e2e.clients import PATIENCE


def test_key_and_certificate_fit(tmp_path):
    key, certificate = make_certificate(tmp_path)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600
    names = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["localhost"]
    assert "127.0.0.1" in map(str, found.get_values_for_type(x509.IPAddress))


def test_made_anew(tmp_path):
    _, certificate = make_certificate(tmp_path)
    before = Path(certificate).read_bytes()
    make_certificate(tmp_path)
    assert Path(certificate).read_bytes() != before


def test_senders_that_trust_it(tmp_path):
    """And no others; browsers of the test need not care."""
    import requests
    from pywebpush import webpush

    service = PushService(tls=True)
    with service as push:
        browser = push.browser()
        subscription = browser.subscribe()
        assert push.url.startswith("https://127.0.0.1:")
        assert push.websocket_url.startswith("ws://127.0.0.1:")
        with requests.Session() as session:
            session.trust_env = False
            with pytest.raises(requests.exceptions.SSLError):
                webpush(subscription, "x", ttl=60, requests_session=session)
            session.verify = service.facts["certificate"]
            webpush(subscription, "x", ttl=60, requests_session=session)
        assert browser.wait(PATIENCE).text == "x"
