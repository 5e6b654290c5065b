"""Which of the engine's models come back after a restart: those that were loaded while the gateway ran, as they were asked for.

Models that the configuration names are its own: what is done to them lasts until the restart.
"""

from collections.abc import Collection, Iterator

import msgspec
import structlog
from quiver.schemas.config import LocalModel
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import SavedModel

from ..store.store import Store


class Lasting:
    """The store's models, by id. `configured` are the names in the configuration: where both name a model, that one wins."""

    def __init__(self, store: Store, configured: Collection[str]) -> None:
        self._store, self._configured = store, configured
        self._log = structlog.get_logger(component="store")
        self._rows: dict[str, SavedModel] = {}
        for row in store.saved.models:
            if row.id in configured:
                self._log.warning("a model is configured and was loaded by hand; the configuration wins", model=row.id)
            else:
                self._rows[row.id] = row

    def __repr__(self) -> str:
        return f"<Lasting: {', '.join(self._rows) or 'none'}>"

    def __iter__(self) -> Iterator[SavedModel]:
        return iter(list(self._rows.values()))

    def get(self, id: str) -> SavedModel | None:
        """The row of this model, if it is to come back."""
        return self._rows.get(id)

    async def keep(self, id: str, model: LocalModel) -> None:
        """Load it at the next start. Raises `ApiError` (503), and then nothing has changed."""
        await self._put(SavedModel(id=id, model=model))

    async def keep_unloaded(self, id: str) -> None:
        """Know it at the next start, and do not load it. Raises like `keep`."""
        if (row := self._rows.get(id)) is not None:
            await self._put(msgspec.structs.replace(row, unloaded=True))

    async def forget(self, id: str) -> None:
        """Do not know it at the next start. Raises like `keep`."""
        if id in self._rows:
            await self._store.remove_model(id)
            del self._rows[id]

    async def put_back(self, id: str, row: SavedModel | None) -> None:
        """A load came to nothing: what was before it comes back. If that cannot be written, it is logged."""
        try:
            await (self.forget(id) if row is None else self._put(row))
        except ApiError as error:
            self._log.warning("a failed load will be tried again at the next start", model=id, reason=error.message)

    async def _put(self, row: SavedModel) -> None:
        if row.id not in self._configured:
            await self._store.save_model(row)
            self._rows[row.id] = row
