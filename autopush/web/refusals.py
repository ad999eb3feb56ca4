"""Refused requests: their metric, and how many lines of the log tell of them."""

from __future__ import annotations

from typing import Any

from autopush.logging.floods import Floods


class Refusals(Floods[int]):
    """Counts them by errno, of which there are as many as :ref:`error-table` has rows."""

    def tell(self, kind: int, count: int) -> None:
        self.log.info("Refused {count} more with errno {errno}", count=count, errno=kind)


def count_refused(application: Any, status_code: int, errno: int | None) -> None:
    """Count a request that was answered with an error of the public documentation.

    :param application: ``metrics``, and the counter ``refused``
    """
    application.refused[status_code, errno or 0] += 1
    metrics = application.metrics
    if metrics.active:
        metrics.increment("requests.refused", tags=[f"errno:{errno or 0}", f"code:{status_code}"])
