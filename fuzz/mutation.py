"""Random input out of sound input: a few changes, so that it gets past the first check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Change = Callable[[Random, bytes], bytes]

MOST_CHANGES = 4
"""Changes made at most; more would only test the first check again."""

REPEATS = (1, 2, 100, 17_000, 34_000)
"""Times a byte is repeated: some are above the limits of lines and of heads."""


def _flip(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _drop(rng: Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + data[end:]


def _double(rng: Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:end] + data[start:]


def _cut_off(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _repeat(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at : at + 1] * rng.choice(REPEATS) + data[at:]


CHANGES: tuple[Change, ...] = (_flip, _flip, _flip, _drop, _double, _cut_off, _repeat)


def _slice(rng: Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, len(data))))


def mutated(rng: Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Return ``data`` with up to :data:`MOST_CHANGES` changes; with none now and then.

    :param words: what means something in this language, to be put in between
    """
    for _ in range(rng.randrange(MOST_CHANGES + 1)):
        if not data or rng.random() < 0.4:
            at = rng.randrange(len(data) + 1)
            data = data[:at] + rng.choice(words) + data[at:]
        else:
            data = rng.choice(CHANGES)(rng, data)
    return data


def pieces(rng: Random, data: bytes) -> list[bytes]:
    """Return ``data`` as it may come from a socket: cut in up to eight places."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(9)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
