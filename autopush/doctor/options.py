"""Checks of what the options say: keys, log output, names, ports, limits."""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from autopush.app.lifecycle import FEW_FILES, SPARE_FILES
from autopush.app.process import own_port
from autopush.app.standalone import (
    ACCESS_KEYS,
    AUTH_KEY,
    CRYPTO_KEY,
    LOG_KEY,
    MIN_AUTH_KEY,
    StartError,
    data_dir_path,
    key_missing,
    parse_access_key,
    parse_auth_key,
    parse_crypto_key,
    read_key_file,
)
from autopush.config import UNIX
from autopush.db import sqlite_path
from autopush.doctor.network import status_of
from autopush.doctor.report import Result, Subject, fail, ok, plural, warn


def logging(subject: Subject) -> Iterator[Result]:
    """Output."""
    output = subject.ns.log_output
    if output in ("stdout", "none"):
        yield ok("log_output", output)
        return
    path = Path(output)
    if path.is_dir():
        yield fail("log_output", f"{output} is a directory")
    elif path.exists():
        able = os.access(path, os.W_OK)
        yield ok("log_output", output) if able else fail("log_output", f"{output}: not writable")
    elif os.access(path.parent, os.W_OK | os.X_OK):
        yield ok("log_output", f"{output}, to be created")
    else:
        yield fail("log_output", f"{output}: can't be created in {path.parent}")


# ---------------------------------------------------------------------------------------- keys


def keys(subject: Subject) -> Iterator[Result]:
    """Crypto keys and keys of registration secrets. What they are is never said."""
    for name in (CRYPTO_KEY, AUTH_KEY) if subject.has_api else (CRYPTO_KEY,):
        given = [key for key in getattr(subject.ns, name) or () if key]
        if given:
            yield from _given_keys(name, given)
        elif subject.is_standalone:
            yield _key_file(subject, name)
        elif name == CRYPTO_KEY:
            yield warn(
                name,
                "none: every process makes its own, endpoints end with it and other nodes"
                " can't read them",
            )
        else:
            yield warn(name, "none: anybody who knows a UAID may change its registration")
    if subject.is_standalone:
        yield _access_keys(subject)
        yield _key_file(subject, LOG_KEY)


def _given_keys(name: str, given: list[str]) -> Iterator[Result]:
    if len(set(given)) < len(given):
        yield warn(name, "the same key is given twice")
    if name == AUTH_KEY and min(map(len, given)) < MIN_AUTH_KEY:
        yield warn(name, f"a key is shorter than {MIN_AUTH_KEY} characters and could be guessed")
    yield ok(name, plural(len(given), "key"))


def _key_file(subject: Subject, name: str) -> Result:
    path = data_dir_path(subject.ns.data_dir) / name
    try:
        return _checked_file(name, path, parse_crypto_key if name == CRYPTO_KEY else parse_auth_key)
    except FileNotFoundError:
        dsn = subject.conf.db_dsn
        needed = name != LOG_KEY and dsn.startswith("sqlite:")
        if needed and os.path.exists(sqlite_path(dsn)):
            return fail(name, key_missing(path))
        when = "next" if name == LOG_KEY else "first"
        return ok(name, f"{path} will be made at the {when} start")


def _access_keys(subject: Subject) -> Result:
    if subject.conf.access_keys:
        return ok("access_key", plural(len(subject.conf.access_keys), "key"))
    try:
        path = data_dir_path(subject.ns.data_dir) / ACCESS_KEYS
        return _checked_file(ACCESS_KEYS, path, parse_access_key)
    except FileNotFoundError:
        return ok("access_key", "none: every user agent that reaches the service may use it")


def _checked_file(name: str, path: Path, parse: Callable[[str], str | None]) -> Result:
    """:raises FileNotFoundError: there is none"""
    try:
        found = read_key_file(path, parse)
        mode = stat.S_IMODE(path.stat().st_mode)
    except StartError as exc:
        return fail(name, str(exc))
    if mode & 0o077:
        return warn(name, f"{path} may be read by others (mode {mode:o}): chmod 600 it")
    return ok(name, f"{plural(len(found), 'key')} in {path}")


def data_dir(subject: Subject) -> Iterator[Result]:
    """The standalone service's directory."""
    if not subject.is_standalone:
        return
    path = data_dir_path(subject.ns.data_dir)
    if path.is_dir():
        mode = stat.S_IMODE(path.stat().st_mode)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            yield fail("data_dir", f"{path} is not writable")
        elif mode & 0o077:
            yield warn("data_dir", f"{path} is open to others (mode {mode:o}): chmod 700 it")
        else:
            yield ok("data_dir", str(path))
    elif path.exists():
        yield fail("data_dir", f"{path} is not a directory")
    else:
        parent = next(p for p in path.parents if p.exists())
        able = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
        yield (
            ok("data_dir", f"{path} will be made at the first start")
            if able
            else fail("data_dir", f"{path} can't be made in {parent}")
        )


# --------------------------------------------------------------------------------------- names


def addresses_of(host: str) -> list[str] | str:
    """The addresses of a host, or why there are none."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return getattr(exc, "strerror", None) or str(exc)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def _all_loopback(addresses: Iterable[str]) -> bool:
    return all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses)


def names(subject: Subject) -> Iterator[Result]:
    """Whether the hosts in the options have addresses."""
    conf = subject.conf
    if subject.has_internal_url:
        host = str(conf.router_hostname)
        found = addresses_of(host)
        if isinstance(found, str):
            yield fail("router_hostname", f"{host}: {found}; other nodes can't reach this one")
        elif _all_loopback(found) and not subject.is_standalone:
            text = f"{host} is {', '.join(found)}: only nodes on this machine can reach this one"
            yield warn("router_hostname", text)
        else:
            yield ok("router_hostname", f"{host} is {', '.join(found)}")
    yield from _may_be_unknown("endpoint_hostname", urlsplit(conf.endpoint_url).hostname)
    yield from _may_be_unknown("statsd_host", conf.statsd_host)


def _may_be_unknown(name: str, host: str | None) -> Iterator[Result]:
    if host:
        found = addresses_of(host)
        if isinstance(found, str):
            yield warn(name, f"{host}: {found}")
        else:
            yield ok(name, f"{host} is {', '.join(found)}")


# --------------------------------------------------------------------------------------- ports


def ports(subject: Subject) -> Iterator[Result]:
    """Whether we may listen where we are to."""
    runs = False
    for name, host, port, tls in _wanted_ports(subject):
        if not port:
            continue
        if host.startswith(UNIX):
            yield _unix_socket(name, host.removeprefix(UNIX))
            continue
        error = _bind_error(host, port)
        if error is None:
            yield ok(name, f"{port} is free")
        elif error.errno != errno.EADDRINUSE:
            yield fail(name, f"Can't listen on {host}:{port}: {error.strerror}")
        else:
            version = _running(host, port, tls)
            runs = runs or version is not None
            if version is not None:
                yield ok(name, f"{port} is in use by autopush {version}, which runs")
            elif runs:
                yield ok(name, f"{port} is in use, as it is while the service runs")
            else:
                yield fail(name, f"{port} is in use by another program")


def _wanted_ports(subject: Subject) -> Iterator[tuple[str, str, int | None, bool]]:
    """Yield each port's option, address and number, and whether it speaks TLS."""
    conf = subject.conf
    unix, tls = conf.host.startswith(UNIX), bool(conf.ssl.key)
    if unix:
        yield "host", conf.host, 1, tls
    else:
        yield "port", conf.host, conf.port, tls
    if subject.is_standalone and conf.endpoint_port not in (None, conf.port):
        yield "endpoint_port", conf.host, conf.endpoint_port, tls
    if subject.has_user_agents:
        host = conf.router_host or conf.host
        option = "router_host" if host.startswith(UNIX) else "router_port"
        for port in _of_each_worker(subject, conf.router_port):
            yield option, host, port, bool(conf.router_ssl.key)
    yield "proxy_protocol_port", "" if unix else conf.host, conf.proxy_protocol_port, False
    own = unix or subject.is_standalone
    for port in _of_each_worker(subject, conf.memusage_port):
        yield "memusage_port", "127.0.0.1" if own else conf.host, port, False


def _of_each_worker(subject: Subject, port: int | None) -> Iterable[int | None]:
    return [own_port(port, number) for number in range(1, subject.conf.workers + 1)]


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as exc:
        return exc
    return None


def _running(host: str, port: int, tls: bool) -> str | None:
    """The version of the autopush that has the port; None: it is something else."""
    address = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    netloc = f"[{address}]" if ":" in address else address
    return status_of(f"{'https' if tls else 'http'}://{netloc}:{port}", verify=False).version


def _unix_socket(name: str, path: str) -> Result:
    parent = Path(path).absolute().parent
    if not os.access(parent, os.W_OK | os.X_OK):
        return fail(name, f"Can't make a socket in {parent}")
    return ok(name, f"{UNIX}{path}")


# -------------------------------------------------------------------------------------- limits


def workers(subject: Subject) -> Iterator[Result]:
    """Whether there are cores for them."""
    count = subject.conf.workers
    if count > 1:
        cores = len(os.sched_getaffinity(0))
        text = f"{count} on {plural(cores, 'core')}"
        yield ok("workers", text) if count <= cores else warn("workers", f"{text}: too many")


def limits(subject: Subject) -> Iterator[Result]:
    """Open files."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = float("inf") if hard == resource.RLIM_INFINITY else hard
    workers = subject.conf.workers
    most = subject.conf.max_connections if subject.has_user_agents else None
    most = most and -(-most // workers)
    wanted = most + SPARE_FILES if most else FEW_FILES
    text = "any number of" if limit == float("inf") else str(hard)
    text = f"{text} files and connections may be open{', by each worker' * (workers > 1)}"
    if limit < wanted:
        yield warn("files", f"{text}, {wanted} are wanted: raise the hard limit")
    else:
        yield ok("files", text)
