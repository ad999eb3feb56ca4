"""``/metrics``: what Prometheus fetches (:mod:`autopush.metrics.prometheus`)."""

from __future__ import annotations

from autopush.httpserver.handler import BaseHandler


class MetricsHandler(BaseHandler):
    """All metrics as text; as OpenMetrics for those who prefer that."""

    async def get(self) -> None:
        """Everything there is."""
        if self.application.refresh is not None:
            await self.application.refresh()
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(self.request.headers.get("accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(self.application.registry))
