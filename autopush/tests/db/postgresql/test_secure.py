"""TLS to the server, and where the password comes from: docs/postgresql, as it tells operators."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from automock.certs import Authority, write_private
from autopush.exceptions import StoreBusy
from autopush.tests.db.postgresql.server import Server
from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import UAID, message, versions

PASSWORD = "ex'tra/ordinary long"
"""Has characters that a DSN would need written in another way."""

RULES = """
local   all all                     trust
hostssl all certified 127.0.0.1/32  cert
hostssl all all       127.0.0.1/32  scram-sha-256
"""
"""Over TCP there is nothing without TLS, and nobody without a password or a certificate."""

VARIABLES = ("PGPASSWORD", "PGPASSFILE", "PGSSLMODE", "PGSSLROOTCERT")


class GuardedServer(Server):
    """One that shows a certificate, and wants to know who comes."""

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(self.home)
        self._set_up(*self.authority.server("server"))

    def _set_up(self, certificate: Path, key: Path) -> None:
        files = {"cert": certificate, "key": key, "ca": self.authority.ca_file}
        if self._user:
            shutil.chown(key, self._user)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("\nssl = on\npassword_encryption = 'scram-sha-256'\n")
            conf.writelines(f"ssl_{name}_file = '{path}'\n" for name, path in files.items())
        (self.data / "pg_hba.conf").write_text(RULES)

    def start(self) -> Server:
        """Start it with two users."""
        super().start()
        literal = PASSWORD.replace("'", "''")
        self.sql(f"CREATE ROLE autopush LOGIN SUPERUSER PASSWORD '{literal}'")
        self.sql("CREATE ROLE certified LOGIN SUPERUSER")
        return self


@cache
def guarded_server() -> GuardedServer:
    """The server of this file's tests; it is stopped with this process."""
    server = GuardedServer()
    atexit.register(server.close)
    server.start()
    return server


class Guarded(PostgresqlCase):
    server: GuardedServer

    def get_server(self) -> Server:
        return guarded_server()

    def setUp(self) -> None:
        super().setUp()
        for name in VARIABLES:
            self.set_variable(name, None)
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)

    def set_variable(self, name: str, text: str | None) -> None:
        """Set a variable of the process for this test, where libpq looks for it."""
        before = os.getenv(name)
        self.addCleanup(self._put_variable, name, before)
        self._put_variable(name, text)

    def _put_variable(self, name: str, text: str | None) -> None:
        if text is None:
            os.unsetenv(name)
        else:
            os.putenv(name, text)

    def remote(self, **parameters: Any) -> str:
        """A DSN over TCP, to a schema of its own."""
        found = {
            "host": "localhost", "hostaddr": "127.0.0.1", "user": "autopush",
            "sslmode": "verify-full", "sslrootcert": self.server.authority.ca_file,
            **parameters,
        }  # fmt: skip
        return self.server.new_schema(**{k: v for k, v in found.items() if v is not None})

    def pass_file(self) -> Path:
        """As the manual has it, with rules for others before."""
        lines = f"other:*:*:autopush:wrong\nlocalhost:*:*:autopush:{PASSWORD}\n"
        return write_private(self.home / "pgpass", lines.encode())

    async def check_works(self, dsn: str) -> None:
        """It can be used, all its connections are over TLS, and none shows the password."""
        store = await self.open_store(dsn)
        await store.store_message("m", message())
        self.assertEqual(versions(await store.fetch_since("m", UAID, None)), [message().version])
        ((count, encrypted),) = self.server.sql(
            "SELECT count(*), bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'autopush' AND client_addr IS NOT NULL"
        )
        self.assertGreaterEqual(count, 2)
        self.assertIs(encrypted, True)
        await store.close()

    def check_refused(self, dsn: str, reason: str) -> None:
        """Every attempt is refused with this reason, and the password stays unsaid."""
        from autopush.db.postgresql.link import Link, parameters

        link = Link(parameters(dsn), threading.Event())
        self.addCleanup(link.drop)
        with self.assertRaisesRegex(StoreBusy, reason) as caught:
            link.run(lambda connection: None, patience=0)
        self.assertNotIn(PASSWORD, str(caught.exception))


class TestPassword(Guarded):
    async def test_in_a_file_that_a_variable_names(self):
        self.set_variable("PGPASSFILE", str(self.pass_file()))
        await self.check_works(self.remote())

    async def test_in_a_file_that_the_dsn_names(self):
        await self.check_works(self.remote(passfile=self.pass_file()))

    async def test_in_a_variable(self):
        self.set_variable("PGPASSWORD", PASSWORD)
        await self.check_works(self.remote())

    async def test_in_the_dsn(self):
        await self.check_works(self.remote(password=PASSWORD))

    def test_none(self):
        self.check_refused(self.remote(passfile="/dev/null"), "no password supplied")

    def test_a_wrong_one(self):
        self.check_refused(self.remote(password=PASSWORD + "x"), "authentication failed")

    def test_a_file_that_others_can_read_is_not_read(self):
        path = self.pass_file()
        path.chmod(0o644)
        self.check_refused(self.remote(passfile=path), "no password supplied")


class TestTls(Guarded):
    async def test_a_certificate_instead_of_a_password(self):
        certificate, key = self.server.authority.client("certified")
        await self.check_works(self.remote(user="certified", sslcert=certificate, sslkey=key))

    async def test_options_may_be_variables(self):
        self.set_variable("PGSSLMODE", "verify-full")
        self.set_variable("PGSSLROOTCERT", str(self.server.authority.ca_file))
        await self.check_works(self.remote(sslmode=None, sslrootcert=None, password=PASSWORD))

    def test_another_authority(self):
        other = Authority(self.home)
        dsn = self.remote(password=PASSWORD, sslrootcert=other.ca_file)
        self.check_refused(dsn, "certificate verify failed")

    def test_another_name(self):
        dsn = self.remote(password=PASSWORD, host="db.example.org")
        self.check_refused(dsn, "does not match host name")

    def test_without_it_the_server_takes_nobody(self):
        self.check_refused(self.remote(password=PASSWORD, sslmode="disable"), "no encryption")
