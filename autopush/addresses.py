"""URLs and addresses of nodes, and what a machine on EC2 knows of itself."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import Any

default_ports = {"ws": 80, "http": 80, "wss": 443, "https": 443}

NODE_ORIGIN = (
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
"""The shape of a node's URL, which nodes write into records as ``node_id``: nothing else is
connected to."""

_NODE_URL = re.compile(NODE_ORIGIN)

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)

_PASSWORD = re.compile(r"(://[^/@:\s]*:)\S*(?=@)|([?&\s](?:ssl)?password=)[^&\s]+")

METADATA_URL = "http://169.254.169.254/latest/meta-data/"
METADATA_TIMEOUT = 1
"""Seconds: the service is on the machine's own link, or it isn't there."""


def canonical_url(scheme: str, hostname: str, port: int | None = None) -> str:
    """Return ``scheme://hostname[:port]``, without the port if it is the scheme's own."""
    if port is None or port == default_ports.get(scheme):
        return f"{scheme}://{hostname}"
    return f"{scheme}://{hostname}:{port}"


def without_password(url: str) -> str:
    """Return a URL, such as that of a database, for people to read."""
    return _PASSWORD.sub(r"\1\2...", url)


def origin_of(text: str) -> str | None:
    """Return an origin as browsers write it (RFC 6454 6.2), ``null`` and ``file://`` included.

    :param text: in any case, with or without the port that is the scheme's own, or a slash behind
    :returns: None if it is no origin
    """
    text = text.strip().lower()
    if text == "null" or text.startswith("file:"):
        return "null" if text == "null" else "file://"
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    return canonical_url(match["scheme"], match["host"], port)


def is_node_url(value: Any) -> bool:
    """Whether it has the shape of a node's URL."""
    return isinstance(value, str) and _NODE_URL.fullmatch(value) is not None


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to this machine by itself, whoever looks it up."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@lru_cache(maxsize=1024)
def shared_host(host: str) -> str:
    """One object for equal texts: all sessions of a node name the same few hosts."""
    return host


def resolve_ip(hostname: str) -> str:
    """Return the name's first IPv4 address, or the name if the resolver knows none. Blocks.

    :raises OSError: the resolver failed
    """
    found = socket.getaddrinfo(hostname, 0, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    return str(found[0][4][0]) if found else hostname


def get_amid() -> str | None:
    """Return the AMI id of the EC2 machine this runs on, or None elsewhere. Blocks up to 2 s."""
    return _ec2_metadata("ami-id")


def get_ec2_instance_id() -> str | None:
    """Return the instance id of the EC2 machine, or None elsewhere. Blocks up to 2 s."""
    return _ec2_metadata("instance-id")


def _ec2_metadata(name: str) -> str | None:
    # Only the cluster's daemons come here; the others are spared the import.
    import requests

    try:
        response = requests.get(METADATA_URL + name, timeout=METADATA_TIMEOUT)
    except requests.RequestException:
        return None
    # Elsewhere something else may answer there (quirk C9). Stand-ins have nothing but a content.
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and status != 200:
        return None
    content = response.content
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else content
