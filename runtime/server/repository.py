"""The models by name, and how one takes another's place without a request being dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from edgewright.runtime.errors import BundleError, UsageError
from edgewright.runtime.server.models import ServedModel, load_model
from edgewright.runtime.server.settings import ServeSettings

__all__ = ["Repository"]


class Repository:
    """What is served. All methods but the constructor belong to the event loop's thread."""

    def __init__(
        self,
        paths: Sequence[Path],
        settings: ServeSettings,
        on_batch: Callable[[str, int], None] | None = None,
    ) -> None:
        """Load every bundle.

        Raises:
            UsageError: two of them have the same name.
        """
        self._settings = settings
        self._on_batch = on_batch
        self._models: dict[str, ServedModel] = {}
        self._loading = asyncio.Lock()
        self._retiring: set[asyncio.Task[bool]] = set()
        try:
            for path in paths:
                model = load_model(path, settings, on_batch)
                name = model.manifest.name
                if name in self._models:
                    model.close(0)
                    raise UsageError(
                        f"'{self._models[name].path}' and '{model.path}' are both called '{name}'. A model is served under "
                        "its bundle's name; export one of them again under another --out."
                    )
                self._models[name] = model
        except BaseException:
            self.close(0)
            raise

    def get(self, name: str) -> ServedModel | None:
        """The model called `name` that serves now."""
        return self._models.get(name)

    @property
    def models(self) -> list[ServedModel]:
        """All that serve now."""
        return list(self._models.values())

    def ready(self) -> bool:
        """Whether every engine of every model answers."""
        return all(model.ready() for model in self._models.values())

    async def reload(self, name: str) -> None:
        """Read the bundle of `name` again, from where it was.

        The new one is opened, proven and warmed while the old one serves; requests that were admitted by the old one get
        their answers from it.

        Raises:
            EdgewrightError: the new one cannot be used; the old one goes on.
        """
        async with self._loading:
            old = self._models[name]
            new = await asyncio.to_thread(load_model, old.path, self._settings, self._on_batch)
            if new.manifest.name != name:
                await asyncio.to_thread(new.close, 0)
                raise BundleError(
                    f"The bundle at '{old.path}' is called '{new.manifest.name}' now, and is served as '{name}'. Export it "
                    "under the same name, or start the server again."
                )
            # No request can be between looking up the model and being admitted by it: both happen without a pause in
            # this thread.
            self._models[name] = new
            retired = asyncio.create_task(asyncio.to_thread(old.close, self._settings.deadline_ms / 1e3 + 1))
            self._retiring.add(retired)
            retired.add_done_callback(self._retiring.discard)

    def close(self, timeout_s: float) -> bool:
        """Close every model; False if one was not finished in time."""
        closed = [model.close(timeout_s) for model in self._models.values()]
        return all(closed)
