"""A certificate for one run, which only those trust who are told to."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from autopush import clock

NAME = "localhost"
ADDRESSES = ("127.0.0.1", "::1")

BEFORE = datetime.timedelta(days=1)
LIFE = datetime.timedelta(days=397)
"""How long it is good: as long as browsers allow, so that no test ends it by moving its clock."""


def make_certificate(directory: Path) -> tuple[str, str]:
    """Write ``tls.key`` and ``tls.crt``, in place of those of an earlier run.

    :returns: their paths
    :raises OSError: they can't be written
    """
    key = ec.generate_private_key(ec.SECP256R1())
    key_file, certificate_file = directory / "tls.key", directory / "tls.crt"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
    certificate_file.write_bytes(certificate_of(key).public_bytes(Encoding.PEM))
    return str(key_file), str(certificate_file)


def certificate_of(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate for this machine, signed by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ADDRESSES]
    now = datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME), *addresses]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
