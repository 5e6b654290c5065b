"""The configuration of a running gateway: read again when its files change, on SIGHUP, or when an operator says so.

It is checked first and then put in force, or the one there is stays. Files are looked at every few seconds, and read once they
have stayed as they are for one more look: an editor may be in the middle of writing.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
import trio
from quiver.proxy.gateway import Gateway
from quiver.proxy.reconfigure import Refused, reconfigure
from quiver.proxy.seams import offload
from quiver.schemas.settings import Change, ConfigReport, Reloaded

from .complaint import SettingsError
from .report import settings_of
from .settings import Loaded, Sources

# How often the files are looked at; a change is in force after two to three looks.
POLL = 2.0

Marks = tuple[tuple[int, int, int] | None, ...]


class LiveConfiguration:
    """Keeps `gateway` as its sources say. Without `sources` nothing can be read again."""

    def __init__(self, gateway: Gateway, loaded: Loaded | None = None, sources: Sources | None = None) -> None:
        self._gateway, self._sources = gateway, sources
        self._loaded = loaded or Loaded(gateway.config, {}, (), ())
        self._at = gateway.world.wall_clock()
        self._pending: list[Change] = []
        self._refused: tuple[str, float] | None = None
        self._lock = trio.Lock()
        self._log = structlog.get_logger(component="configuration")

    def __repr__(self) -> str:
        return f"<LiveConfiguration of {len(self._files())} files{', refused' if self._refused else ''}>"

    def report(self) -> ConfigReport:
        """What is in force, where it comes from, and what waits."""
        why, at = self._refused or (None, None)
        return ConfigReport(
            settings=settings_of(self._gateway.config, self._loaded, self._pending),
            files=[str(file) for file in self._loaded.files],
            loaded=self._at,
            pending=self._pending,
            warnings=list(self._loaded.warnings),
            refused=why,
            refused_at=at,
        )

    async def reload(self, actor: str | None = None) -> Reloaded:
        """Read the sources and put in force what they say. Raises `SettingsError` or `Refused`; nothing has changed then."""
        async with self._lock:
            if self._sources is None:
                raise Refused("this gateway was given its configuration by a program; there is nothing to read again")
            try:
                loaded = await offload(self._sources.read)
                found = await reconfigure(self._gateway, loaded.config)
            except (SettingsError, Refused) as error:
                self._note_refusal(str(error), actor)
                raise
            except Exception:
                self._log.exception("the reload broke")
                self._note_refusal("internal error; the log has it", actor)
                raise
            return self._note_changes(loaded, found, actor)

    async def watch(self) -> None:
        """Reload whenever the files have changed, until cancelled."""
        seen = last = await self._look()
        while True:
            await trio.sleep(POLL)
            now = await self._look()
            if now != seen and now == last:
                seen = now
                await self._try("a file")
            last = now

    async def mind_hangups(self) -> None:
        """Reload on SIGHUP, where there is such a thing, until cancelled."""
        if not hasattr(signal, "SIGHUP"):
            return
        with trio.open_signal_receiver(signal.SIGHUP) as received:
            async for _ in received:
                await self._try("SIGHUP")

    async def _try(self, actor: str) -> None:
        with contextlib.suppress(Exception):  # it is noted, and the gateway goes on as before
            await self.reload(actor)

    def _note_refusal(self, reason: str, actor: str | None) -> None:
        self._refused = (reason, self._gateway.world.wall_clock())
        self._log.error("configuration refused; the one before stays in force", reason=reason)
        self._gateway.journal.note("config.refused", "configuration", actor=actor, reason=reason)

    def _note_changes(self, loaded: Loaded, found: Sequence[Change], actor: str | None) -> Reloaded:
        known, warned = self._pending, self._loaded.warnings
        changed = [change for change in found if change.live]
        self._pending = [change for change in found if not change.live]
        self._loaded, self._at, self._refused = loaded, self._gateway.world.wall_clock(), None
        for change in changed:
            self._gateway.journal.note(
                "config.changed", change.path, actor=actor, before=change.before, after=change.after
            )
        for change in self._pending:
            if change not in known:
                self._log.warning("needs a restart", setting=change.path, before=change.before, after=change.after)
        for warning in loaded.warnings:
            if warning not in warned:
                self._log.warning(warning)
        if changed:
            self._log.info("configuration reloaded", changed=len(changed), pending=len(self._pending))
        return Reloaded(changed=changed, pending=self._pending)

    def _files(self) -> list[Path]:
        return [] if self._sources is None else self._sources.watched(self._loaded.files)

    async def _look(self) -> Marks:
        return await offload(_marks, self._files())


@contextlib.contextmanager
def hangups_ignored() -> Iterator[None]:
    """A SIGHUP that comes before the gateway minds it must not end it. For the main thread."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _marks(files: Sequence[Path]) -> Marks:
    """What tells whether files have changed: when each was written, which file it is, and its size; None for none."""
    return tuple(map(_mark, files))


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
