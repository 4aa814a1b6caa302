"""What `/metrics` tells Prometheus. A registry of its own, so that several servers in one process do not mix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from edgewright.runtime.server.models import Answer, ServedModel
from edgewright.runtime.server.repository import Repository

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_STAGES = ("queue", "decode", "preprocess", "inference")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "edgewright_requests",
            "Requests by endpoint and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "edgewright_request_seconds",
            "From the head of a request to its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "edgewright_stage_seconds",
            "Time of one picture in each stage.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pictures = Counter("edgewright_pictures", "Pictures answered.", ("model",), registry=self._registry)
        self._batches = Histogram(
            "edgewright_batch_size", "Pictures per batch.", ("model",), buckets=_SIZES, registry=self._registry
        )
        self._by_model: dict[str, tuple[Counter, Histogram, Histogram, Histogram, Histogram]] = {}
        ProcessCollector(registry=self._registry)

    def watch(self, repository: Repository) -> None:
        """Add what is read off the models at each scrape."""
        self._registry.register(_ModelCollector(repository))

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def answers(self, model: str, answers: Iterable[Answer], waited_s: float) -> None:
        """Count what a request's pictures took."""
        pictures, queue, decode, preprocess, inference = self._of_model(model)
        for answer in answers:
            pictures.inc()
            decode.observe(answer.decode_ms / 1e3)
            preprocess.observe(answer.preprocess_ms / 1e3)
            inference.observe(answer.inference_ms / 1e3)
        queue.observe(waited_s)

    def _of_model(self, model: str) -> tuple[Counter, Histogram, Histogram, Histogram, Histogram]:
        """A model's own, looked up once: looking up labels takes longer than counting."""
        found = self._by_model.get(model)
        if found is None:
            queue, decode, preprocess, inference = (self._stages.labels(model, stage) for stage in _STAGES)
            found = self._by_model[model] = (self._pictures.labels(model), queue, decode, preprocess, inference)
        return found

    def batch(self, model: str, size: int) -> None:
        """Count one batch."""
        self._batches.labels(model).observe(size)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _ModelCollector(Collector):
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Gauges of each model."""
        for name, text, value in (
            ("edgewright_waiting_pictures", "Pictures that wait for an engine.", _waiting),
            ("edgewright_running_requests", "Requests admitted and not answered yet.", _running),
            ("edgewright_engines", "Engines.", _engines),
            ("edgewright_hung_engines", "Engines that do not answer.", _hung),
        ):
            family = GaugeMetricFamily(name, text, labels=("model",))
            for model in self._repository.models:
                family.add_metric((model.manifest.name,), value(model))
            yield family


def _waiting(model: ServedModel) -> int:
    return model.batcher.waiting


def _running(model: ServedModel) -> int:
    return model.batcher.running


def _engines(model: ServedModel) -> int:
    return model.workers


def _hung(model: ServedModel) -> int:
    return model.batcher.hung()
