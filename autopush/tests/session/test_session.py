"""What a session holds, and that nothing holds it."""

from __future__ import annotations

import gc
import sys

import pytest

from autopush.tests.session.support import (
    UAID,
    message,
)


def own_size(session, shared):
    """Bytes of the session and of what belongs to nobody else."""
    total = sys.getsizeof(session)
    for name in session.__slots__:
        value = getattr(session, name)
        if id(value) not in shared and not isinstance(value, bool | type(None)):
            shared.add(id(value))
            total += sys.getsizeof(value)
    return total


@pytest.mark.parametrize("uaid", [None, UAID])
def test_an_idle_session_is_small(rig, uaid):
    session = rig.hello(uaid)
    shared = {id(obj) for obj in (rig.node, session.wire, session.user_agent, session.host)}
    shared |= {id(session.month), id(session.state), id(0)}
    assert session.queue is session.direct is session.leaving is None
    assert session.stored is session.settling is session.timer is None
    assert not hasattr(session, "__dict__")
    assert own_size(session, shared) < 600


def test_an_ended_session_is_freed_without_the_collector(rig):
    gc.collect()
    gc.disable()
    try:
        session = rig.live()
        rig.deliver(message())
        wire = session.wire
        wire.session = session
        session.closed()
        before = sys.getrefcount(session)
        wire.session = None
        assert sys.getrefcount(session) == before - 1 == 2
    finally:
        gc.enable()
