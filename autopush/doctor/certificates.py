"""Checks of the TLS files."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname as verify_hostname,
    verify_certificate_ip_address as verify_ip_address,
)

from autopush import clock
from autopush.config import SSLConfig
from autopush.doctor.report import Result, Subject, fail, ok, plural, warn
from autopush.ssl import AutopushSSLContextFactory, TLSFileError, load_chain

Verdict = Callable[[str, str], Result]

SOON = 14
"""Days. Renewals are usually made 30 days before the end: then something is wrong with them."""


def tls(subject: Subject) -> Iterator[Result]:
    """The certificates of all listeners."""
    conf = subject.conf
    if subject.has_api:
        https = urlsplit(conf.endpoint_url).scheme == "https"
        host = urlsplit(conf.endpoint_url).hostname if https else None
    else:
        host = conf.hostname
    yield from _listener("ssl_cert", conf.ssl, host, warn)
    if subject.has_internal_url:
        yield from _listener("router_ssl_cert", conf.router_ssl, conf.router_hostname, fail)
    if conf.client_certs is not None and subject.has_api:
        text = f"{plural(len(conf.client_certs), 'certificate')} may use the API"
        yield ok("client_certs", f"{text}; VAPID signatures are not checked")


def _listener(name: str, files: SSLConfig, host: str | None, mismatch: Verdict) -> Iterator[Result]:
    if not files.key:
        if files.cert:
            yield warn(name, f"{files.cert} is not used: there is no key, so no TLS")
        return
    try:
        factory = AutopushSSLContextFactory(files.key, files.cert, dh_file=files.dh_param)
        chain = load_chain(str(files.cert))
    except TLSFileError as exc:
        yield fail(name, str(exc))
        return
    yield validity(name, chain[0], str(files.cert))
    yield from _names(name, factory.certificate, host, mismatch)
    if len(chain) == 1 and chain[0].issuer != chain[0].subject:
        yield warn(name, f"{files.cert} holds no intermediate certificate: is the chain complete?")
    if stat.S_IMODE(os.stat(files.key).st_mode) & 0o007:
        yield warn(name, f"the key {files.key} may be read by anybody: chmod it")


def validity(name: str, certificate: x509.Certificate, what: str) -> Result:
    """Whether a certificate is valid today and some days on."""
    now = datetime.fromtimestamp(clock.now(), UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return fail(name, f"{what} is not valid before {begin:%Y-%m-%d %H:%M} UTC")
    if now > end:
        return fail(name, f"{what} has expired on {end:%Y-%m-%d}")
    days = (end - now).days
    if days < SOON:
        return warn(name, f"{what} expires in {plural(days, 'day')}, on {end:%Y-%m-%d}")
    return ok(name, f"{what} fits its key and is valid until {end:%Y-%m-%d}")


def _names(
    name: str, certificate: x509.Certificate, host: str | None, mismatch: Verdict
) -> Iterator[Result]:
    if not host:
        return
    try:
        ipaddress.ip_address(host)
        is_address = True
    except ValueError:
        is_address = False
    try:
        (verify_ip_address if is_address else verify_hostname)(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        yield mismatch(name, f"the certificate doesn't name {host}")
