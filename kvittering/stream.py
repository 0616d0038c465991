"""Server-sent events: a søknad's status, live.

An event is ``status``, its ``data`` the citizen's view as JSON and its ``id`` the view's version. The first event is the present
view, unless the client names that version in ``Last-Event-ID``: a client that comes back has missed nothing, since each view is
the whole truth. Idle streams carry a comment now and then, so that what is between us does not close them.

Source: WHATWG HTML, server-sent events.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.web import FiksError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from kvittering.hub import Hub, View
    from schemas.names import DigisosId, Eier

HEARTBEAT = b": her\n\n"


async def events(
    hub: Hub,
    digisos_id: DigisosId,
    eier: Eier,
    current: Callable[[], Awaitable[View]],
    *,
    last_event_id: str | None,
    heartbeat_s: float,
    max_stream_s: float,
) -> AsyncGenerator[bytes]:
    """Yield the stream's bytes until the client goes, the process stops, or the time is up.

    Args:
        hub: Where changes come from.
        digisos_id: Which søknad.
        eier: Whose stream it is.
        current: Reads the present view from the store.
        last_event_id: The version that the client has, if it came back.
        heartbeat_s: How often an idle stream says that it lives.
        max_stream_s: How long the stream lasts, at most for as long as the client's token does.
    """
    ends = time.monotonic() + max_stream_s
    shown = last_event_id
    with hub.listen(digisos_id, eier) as listener:
        try:
            listener.put(await current())
            while (left := ends - time.monotonic()) > 0:
                view = await listener.next(min(heartbeat_s, left))
                if view is None:
                    yield HEARTBEAT
                elif view.version != shown:
                    shown = view.version
                    yield event(view)
        except (EOFError, FiksError):
            return


def event(view: View) -> bytes:
    """Return one event; the view is JSON without line breaks, so one ``data`` line holds it."""
    return b"id: " + view.version.encode("ascii") + b"\nevent: status\ndata: " + view.body + b"\n\n"
