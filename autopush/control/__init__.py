"""The test mode of the standalone service: ``autopush_standalone --control``.

Everything a test wants of a push service besides its real work, over HTTP on loopback::

    api ──────────▶ rig          what the operations of the control API do
                    │ │ └─▶ faults    what goes wrong on purpose, for whom
                    │ └───▶ observed  the HTTP API, watched: what senders posted, and why it failed
                    └─────▶ agents    user agents without a browser, each a WebSocket client
                                      of this very service, with keys of its own
    inbox ────────▶ rig          what the page shows of all that

None of it is imported, or costs anything, without ``--control``. The Python side of it, which tests
use, is :mod:`autopush.testing`.
"""
