"""Numbers that more than one module needs."""

THREAD_POOL_SIZE = 50
"""Worker threads, and so the number of blocking storage calls at a time."""

DEFAULT_ROUTER_TIMEOUT = 3
"""Seconds a bridge may take to answer."""

MAX_TTL = 2_592_000
"""Seconds (30 days): larger TTL headers are reduced to this, and answered so (RFC 8030 5.2)."""

MAX_EXPIRY = MAX_TTL
"""Seconds (30 days) after which a stored row may be removed (spec/storage 10): no message is
promised to be kept for longer."""

RECORD_VERSION = 1
"""``record_version`` of new router records; an older user gets a new UAID (spec/storage 2)."""
