"""Metrics for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from layeralign.serving.requests import Asked, Offer
from layeralign.serving.scheduler import End, Job

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


class Metrics:
    """Counts of requests, answers and tokens; they have no text of any request."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        start = "layeralign_serve"
        self.responses = Counter(f"{start}_responses", "Responses", ["status"], registry=self.registry)
        self._answers = Counter(
            f"{start}_answers", "Answers", ["exit", "finish_reason"], registry=self.registry
        )
        self._tokens = Counter(f"{start}_tokens", "Tokens", ["kind"], registry=self.registry)
        self._seconds = Histogram(
            f"{start}_seconds", "Time of a request", buckets=_SECONDS, registry=self.registry
        )
        queue = Gauge(f"{start}_queue", "Answers that wait or are being generated", registry=self.registry)
        queue.set_function(waiting)

    def answered(self, asked: Asked, offer: Offer, end: End) -> None:
        """Count an answer."""
        self._answers.labels(offer.exits.name(asked.exit), end.finish_reason).inc()
        self._tokens.labels("completion").inc(end.tokens)

    def finished(self, job: Job, began: float) -> None:
        """Count a request whose answers are complete; `began` is its time on `time.monotonic`."""
        self._tokens.labels("prompt").inc(job.prompt_tokens)
        self._seconds.observe(time.monotonic() - began)
