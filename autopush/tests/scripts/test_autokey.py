"""``autokey``: keys for the operator."""

from __future__ import annotations

import re

import pytest

from autopush.app.standalone import parse_access_key, parse_crypto_key, parse_key_file
from autopush.scripts import autokey


def printed(monkeypatch, capsys, *args):
    monkeypatch.setattr("sys.argv", ["autokey", *args])
    autokey.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("args", [(), ("whatever",)])
def test_crypto_key(monkeypatch, capsys, args):
    """Spec/configuration 1.3: one line, whatever the arguments."""
    text = printed(monkeypatch, capsys, *args)
    assert re.fullmatch(r'CRYPTO_KEY="[\w-]{43}="\n', text)
    assert parse_crypto_key(text.strip())


def test_access_key(monkeypatch, capsys, tmp_path):
    """All it prints may go into the file."""
    text = printed(monkeypatch, capsys, "--access")
    (key,) = parse_key_file(tmp_path / "access_keys", text, parse_access_key)
    assert len(key) == 43
    assert "access_keys" in text
    assert text.splitlines()[-1] == key
    more = printed(monkeypatch, capsys, "--access")
    assert len(parse_key_file(tmp_path / "access_keys", text + more, parse_access_key)) == 2


def test_access_keys_are_no_options(monkeypatch):
    """One that begins with a dash would be taken for one on a command line."""
    made = iter(["-" + "a" * 42, "b" * 43])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(made))
    assert autokey.access_key() == "b" * 43
