"""Stores in a folder: filled, closed, and looked at again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from quiver.proxy.store.store import Store
from quiver.schemas import config
from quiver.schemas.config import LocalModel, RemoteBackend
from quiver.schemas.saved import Saved, SavedKey, SavedModel, SavedServer, SavedState

NOW = 1_700_000_000.0


def server(id: str, **fields: object) -> SavedServer:
    backend = RemoteBackend(url=f"http://{id}.lab:8000", name=id, api_key=f"key-of-{id}")
    return SavedServer(id=id, backend=backend, created=NOW, changed=NOW)


def key(id: str) -> SavedKey:
    return SavedKey(id=id, name=f"name-{id}", digest=id * 8, hint="abcd", created=NOW, changed=NOW)


def open_store(folder: Path | None) -> Store:
    """Close it with `left` when it is not run."""
    return Store.open(folder, config.Store(flush_pause=0.001), lambda: NOW)


@asynccontextmanager
async def running(folder: Path | None) -> AsyncIterator[Store]:
    """An open store and its writer."""
    store = open_store(folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        yield store
        store.close()


async def leave(store: Store) -> None:
    """Close a store that was only looked at."""
    store.close()
    await store.write()


async def fill(folder: Path, servers: int = 40) -> None:
    """Some of everything, in an order that leaves holes."""
    async with running(folder) as store:
        for number in range(servers):
            await store.save_server(server(f"s{number}"))
        await store.remove_server("s3")
        for number in range(5):
            await store.save_key(key(f"k{number}"))
        await store.save_model(SavedModel(id="m", model=LocalModel(path="/m.gguf", id="m")))
        await store.save_state(SavedState(id="s1", mode="paused"))
        store.keep_state(SavedState(id="s1", models=("a",), state="healthy"))
        await store.save_setting("colours", {"page": "dark"})
        await store.wait_written()


async def look(folder: Path) -> tuple[Saved, bytes, str | None]:
    """What is there: the rows, the secret, and why they had to be put right, if so."""
    store = open_store(folder)
    await leave(store)
    return store.saved, store.secret, None if store.recovery is None else store.recovery.reason


def registered(saved: Saved) -> tuple[object, ...]:
    """What must not be lost, however it was damaged."""
    modes = {id: state.mode for id, state in saved.states.items() if state.mode != "serving"}
    return saved.servers, saved.keys, saved.models, saved.settings, modes
