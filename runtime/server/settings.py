"""What `edgewright serve` can be told, with defaults for 1 to 16 cores."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from edgewright.runtime.backends.base import MOST_THREADS
from edgewright.runtime.images import MAX_PIXELS
from edgewright.runtime.server.batcher import BatchRules

__all__ = ["Limits", "ServeSettings"]

_MIB = 1024 * 1024
WAITING_PER_WORKER = 4
"""Pictures that wait for each engine when no more are let in: with the one in work, the last of them is answered after
about five times what one takes, and a server at twice its capacity answers nearly as fast as one at its capacity."""

FEWEST_WAITING = 8
"""So that a handful of clients, each with one request at a time, are never refused."""

BATCH_ON_ACCELERATOR = 8


class Limits(BaseModel):
    """How much of a stranger's is accepted; what is more gets a 4xx that names the limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_mb: int = Field(32, ge=1, le=1024, description="Largest request in MiB, after decompression.")
    max_json_mb: int = Field(8, ge=1, le=1024, description="Largest JSON in MiB; binary tensors after it do not count.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="Largest width x height of a picture.")
    max_pictures: int = Field(64, ge=1, le=4096, description="Most pictures in one request.")
    max_json_depth: int = Field(16, ge=4, le=128, description="Deepest nesting of lists and objects.")
    max_headers: int = Field(64, ge=8, le=1024, description="Most headers of a request.")
    max_header_kb: int = Field(16, ge=1, le=1024, description="Largest head (line and headers) of a request in KiB.")
    max_connections: int = Field(512, ge=1, le=65536, description="Most connections at a time.")
    max_buffered_mb: int = Field(256, ge=1, description="Most memory for all requests' bodies together, in MiB.")
    read_timeout_s: float = Field(30.0, gt=0, le=3600, description="Longest time for a request to arrive.")

    @property
    def max_json_bytes(self) -> int:
        """Largest JSON, in bytes. While it is parsed nothing else of the interpreter runs: 8 MiB are some 50 ms."""
        return self.max_json_mb * _MIB

    @property
    def max_body_bytes(self) -> int:
        """Largest body, in bytes."""
        return self.max_body_mb * _MIB

    @property
    def max_buffered_bytes(self) -> int:
        """All bodies together, in bytes; at least one fits."""
        return max(self.max_buffered_mb, self.max_body_mb) * _MIB


class ServeSettings(Limits):
    """Everything but the bundles and the token."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    artefact: str | None = None
    backend: str | None = None
    device: str | None = None
    min_score: float = Field(0.0, ge=0, le=1, description="Labels with less count as unknown.")
    workers: int | None = Field(None, ge=1, le=256, description="Engines side by side.")
    threads: int = Field(1, ge=1, le=MOST_THREADS, description="Threads of each.")
    max_batch: int | None = Field(None, ge=1, le=256, description="Most pictures that an engine is given at once.")
    max_delay_ms: float = Field(0.0, ge=0, le=10_000, description="How long a picture may wait for others.")
    queue: int | None = Field(None, ge=1, le=100_000, description="Pictures that may wait for an engine.")
    deadline_ms: float = Field(10_000.0, ge=1, le=3_600_000, description="Longest time from the queue to the result.")
    drain_s: float = Field(30.0, ge=0, le=3600, description="Longest time to finish what was accepted, at the end.")

    def rules(self, workers: int, *, on_accelerator: bool) -> BatchRules:
        """For a model with so many engines.

        A CPU computes a batch hardly faster than its pictures one after the other (MobileNetV2, one thread: 0 to 10 %),
        which are answered sooner; an accelerator needs batches.
        """
        return BatchRules(
            max_batch=self.max_batch or (BATCH_ON_ACCELERATOR if on_accelerator else 1),
            max_delay_s=self.max_delay_ms / 1e3,
            queue=self.queue or max(FEWEST_WAITING, WAITING_PER_WORKER * workers),
            deadline_s=self.deadline_ms / 1e3,
        )
