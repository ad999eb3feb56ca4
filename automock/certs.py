"""Certificates and keys, made at the start and gone at the end."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
"""Strict verifiers, such as Python's from 3.13 on, want it spelled out."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private_pem(key: Key) -> bytes:
    """Return a key as PKCS #8, which is also the format of Apple's ``.p8`` files."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_private(path: Path, content: bytes) -> Path:
    """Write a file nobody else may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return path


def new_p8(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key and write it to a file; returns the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, private_pem(key))
    return key


class Authority:
    """Signs certificates that are good for a week.

    :param directory: for the files
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "automock")])
        self._certificate = self._sign(self._name, self._key.public_key(), [], None)
        self.ca_file = directory / "automock-ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier | None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        )
        if usage is None:
            builder = builder.add_extension(CA_USAGE, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _issue(
        self, name: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), names, usage)
        cert_file = self.directory / f"{name}.crt"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cert_file, write_private(self.directory / f"{name}.key", private_pem(key))

    def server(self, name: str, host: str = "127.0.0.1") -> tuple[Path, Path]:
        """Issue a certificate for an address, and ``localhost``.

        :returns: certificate file and key file
        """
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
        return self._issue(name, names, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str) -> tuple[Path, Path]:
        """Issue a client certificate.

        :returns: certificate file and key file
        """
        return self._issue(name, [], ExtendedKeyUsageOID.CLIENT_AUTH)

    def server_context(
        self, name: str, host: str = "127.0.0.1", protocols: tuple[str, ...] = ("http/1.1",)
    ) -> ssl.SSLContext:
        """Return the context of a server with a new certificate.

        :param protocols: for ALPN
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self.server(name, host))
        context.set_alpn_protocols(list(protocols))
        return context
