"""A short run of fuzz/server.py: a running service under what strangers send."""

from __future__ import annotations

from fuzz.server import main


def test_strangers_do_no_harm(capsys):
    assert main(["--requests", "1500", "--frames", "1500"]) == 0, capsys.readouterr().out
