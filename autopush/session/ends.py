"""Channels that are no more, though something of theirs is still stored (spec/websocket 5.3).

Whoever removes a channel deletes what waits for it. Left over is what a sender had begun to store
at that moment, and what a node of 1.58.3 leaves: such rows are deleted when they are met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from autopush.message.notification import WebPushNotification
    from autopush.session.session import BaseSession


async def among(session: BaseSession, messages: list[WebPushNotification]) -> set[UUID]:
    """The channels of these messages that are not registered any more.

    What was read at the beginning of the pass acquits most; only who is not among those is looked
    up again, as it may have been registered since.
    """
    known = session.channels or ()
    suspects = {n.channel_id for n in messages if str(n.channel_id) not in known}
    if not suspects:
        return suspects
    store = session.node.store
    assert session.uaid is not None
    ended = await store.ended_channels(session.month, session.uaid, set(map(str, suspects)))
    return {chid for chid in suspects if str(chid) in ended}
