"""The fuzzers of the parsers: a short run of each, and that they see what is wrong."""

from __future__ import annotations

import random

import pytest

from autopush.httpserver.parser import RequestParser
from autopush.message.crypto_key import CryptoKey, CryptoKeyException
from autopush.websocket.trimmed import SlimServerProtocol
from fuzz import parsers
from fuzz.mutation import mutated, pieces

SEED = 20
ROUNDS = range(150)


@pytest.mark.parametrize("name", parsers.TARGETS)
def test_what_is_promised_holds(name):
    assert parsers.fuzz(name, SEED, ROUNDS) == len(ROUNDS)


@pytest.mark.parametrize("name", parsers.TARGETS)
def test_a_second_run_of_the_same_keeps_nothing(name):
    assert parsers.growth(name, SEED, range(50)) <= parsers.MAY_GROW


@pytest.mark.parametrize("name", parsers.TARGETS)
def test_a_round_is_the_same_in_every_run(name):
    first, again = (parsers.TARGETS[name](parsers.random_of(SEED, name, 3)) for _ in range(2))
    assert first == again
    assert first != parsers.TARGETS[name](parsers.random_of(SEED, name, 4))


class TestFaultsAreSeen:
    """Each target finds a fault that is planted in what it tests."""

    def refusal(self, name, numbers=range(2000)):
        with pytest.raises(parsers.Failure) as caught:
            parsers.fuzz(name, SEED, numbers)
        return str(caught.value)

    def test_a_head_without_a_limit(self, monkeypatch):
        monkeypatch.setattr(RequestParser, "_check_incomplete", lambda *_: None)
        assert "AssertionError" in self.refusal("http")

    def test_a_frame_without_a_limit(self, monkeypatch):
        monkeypatch.setattr(SlimServerProtocol, "_too_big", lambda *_: False)
        assert "AssertionError" in self.refusal("frames")

    def test_a_token_for_somebody_else(self, monkeypatch):
        open_ = parsers.parse_endpoint
        monkeypatch.setattr(
            parsers, "parse_endpoint", lambda *args: open_(*args)._replace(uaid="0" * 32)
        )
        assert "AssertionError" in self.refusal("tokens")

    def test_an_unsigned_token(self, monkeypatch):
        monkeypatch.setattr(parsers, "verify", lambda *_: {})
        assert "AssertionError" in self.refusal("vapid")

    def test_an_exception_nobody_expects(self, monkeypatch):
        def parse(self, header):
            if header.isascii():
                raise CryptoKeyException
            raise KeyError(header)

        monkeypatch.setattr(CryptoKey, "__init__", parse)
        assert self.refusal("headers").startswith("KeyError: ")

    def test_what_grows(self, monkeypatch):
        kept = []
        monkeypatch.setitem(parsers.TARGETS, "http", lambda rng: kept.append(rng.randbytes(99)))
        numbers = range(parsers.MAY_GROW * 2)
        assert parsers.growth("http", SEED, numbers) > parsers.MAY_GROW


class TestCommand:
    def run(self, capsys, *arguments):
        status = parsers.main(list(arguments))
        return status, capsys.readouterr().out

    def test_rounds_are_those_asked_for(self, capsys):
        status, out = self.run(capsys, "--seed", "1", "--rounds", "3", "tokens", "vapid")
        assert status == 0
        assert out.startswith("seed 1\ntokens: 3 rounds in ")
        assert "\nvapid: 3 rounds in " in out

    def test_time_ends_it(self, capsys):
        status, out = self.run(capsys, "--seconds", "0", "headers")
        assert status == 0
        assert "headers: 0 rounds in " in out

    def test_a_failure_says_how_to_see_it_again(self, capsys, monkeypatch):
        def target(rng):
            assert rng.randrange(20)
            return ""

        monkeypatch.setitem(parsers.TARGETS, "tokens", target)
        status, out = self.run(capsys, "--seed", "1", "tokens")
        assert status == 1
        command = out.splitlines()[-1]
        assert command.startswith("python -m fuzz.parsers --seed 1 --first ")
        status, again = self.run(capsys, *command.split()[3:])
        assert (status, again.splitlines()[-1]) == (1, command)

    def test_unknown_target(self, capsys):
        with pytest.raises(SystemExit):
            self.run(capsys, "nonsense")


@pytest.mark.parametrize("data", [b"", b"x", b"some text to cut"])
def test_pieces_are_the_whole(data):
    for number in range(50):
        cut = pieces(random.Random(number), data)
        assert b"".join(cut) == data
        assert all(cut)


def test_mutation_starts_from_the_given():
    rng = random.Random(1)
    results = {mutated(rng, b"abc", [b"!"]) for _ in range(200)}
    assert b"abc" in results
    assert b"" in results or any(len(result) < 3 for result in results)
    assert any(len(result) > 3 for result in results)
