"""The admin API for client keys: told once, saved before they count, changed under their versions, and kept over restarts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from quiver.admin.api.app import create_app
from quiver.proxy.access.minting import is_minted
from quiver.proxy.gateway import Gateway
from quiver.proxy.seams import World
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.record import Record
from quiver.proxy.testing import SimulatedNetwork
from quiver.schemas import errors
from quiver.schemas.config import Auth, Config, Engine, Key
from quiver.schemas.errors import ApiError
from quiver.schemas.events import Event
from quiver.schemas.openai import Usage
from quiver.schemas.saved import SavedKey

ADMIN = "quiver-admin-key"
NOW = 1_700_000_000.0
CONFIG = Config(
    engine=Engine(bolt=False),
    auth=Auth(admin_key=ADMIN),
    keys=(Key(name="written", key="written-secret", requests_per_minute=5),),
)


class Asked:
    """A gateway that does not run, whose admin API can be asked."""

    def __init__(self, config: Config, store: Store) -> None:
        self.now = NOW
        world = World(lambda: self.now, Random(1), SimulatedNetwork(Random(2)))
        self.gateway = Gateway(config, world, lambda batch: None, on_loopback=True, store=store)
        self.events: list[Event] = []
        self.gateway.journal.keep = self.events.append
        self._client: Any = create_app(self.gateway).test_client()
        self.headers: Any = {}

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        told = {"Host": "localhost", "X-API-Key": ADMIN} | {name.replace("_", "-"): headers[name] for name in headers}
        data = None if body is None else msgspec.json.encode(body)
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        reply = await self._client.open(
            path, method=method, data=data, headers=told, scope_base={"client": ("127.0.0.1", 9)}
        )
        self.headers = reply.headers
        text = await reply.get_data()
        return reply.status_code, msgspec.json.decode(text) if text else None

    async def make(self, name: str, **fields: object) -> tuple[str, str]:
        """A key's id, and the key."""
        status, made = await self("POST", "/admin/keys", {"name": name, **fields})
        assert status == 201, made
        return made["id"], made["key"]

    def opens(self, key: str) -> str:
        """The name of a key's client, or the code of the error it gets."""
        fields = {b"authorization": f"Bearer {key}".encode()}
        try:
            return self.gateway.keys.authenticate(fields.get, "10.0.0.1", trio.current_time()).name
        except ApiError as error:
            return error.kind.code


@asynccontextmanager
async def gateway(folder: Path | None = None, config: Config = CONFIG) -> AsyncIterator[Asked]:
    store = Store.open(folder, config.store, lambda: NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        yield Asked(config, store)
        store.close()


async def test_key_is_told_once() -> None:
    async with gateway() as ask:
        status, made = await ask("POST", "/admin/keys", {"name": "alice", "budget_tokens": 1000, "models": ["m"]})
        assert status == 201
        assert is_minted(made["key"].encode())
        assert ask.headers["Location"] == f"/admin/keys/{made['id']}"
        assert ask.headers["Cache-Control"] == "no-store"
        assert (made["state"], made["hint"], made["version"]) == ("active", made["key"][-4:], 1)
        assert made["budget"] == {
            "tokens": 1000, "period": "month", "spent": 0, "reserved": 0, "left": 1000, "ends": 1_701_388_800.0
        }  # fmt: skip
        assert ask.opens(made["key"]) == "alice"
        for path in (f"/admin/keys/{made['id']}", "/admin/keys/alice", "/admin/keys"):
            status, found = await ask("GET", path)
            assert status == 200
            assert made["key"] not in msgspec.json.encode(found).decode()
        assert [event.kind for event in ask.events] == ["key.created"]
        assert ask.events[0].actor == "admin@127.0.0.1"
        assert made["key"] not in repr(ask.events)


async def test_keys_outlive_the_process(tmp_path: Path) -> None:
    async with gateway(tmp_path) as ask:
        id, key = await ask.make("alice", budget_tokens=1000, budget_period="day", expires=NOW + 100)
        _, gone = await ask.make("bob")
        await ask("DELETE", "/admin/keys/bob")
        ask.gateway.store.keep_records([record("alice", charged=70), record("alice", charged=5, error=True)])
        await ask.gateway.store.wait_written()
    assert key.encode() not in kept_in(tmp_path)
    async with gateway(tmp_path) as ask:
        _, found = await ask("GET", f"/admin/keys/{id}")
        assert found["budget"]["spent"] == 75
        assert found["last_used"] == NOW
        assert (ask.opens(key), ask.opens(gone)) == ("alice", "revoked_api_key")
        ask.now += 100
        assert ask.opens(key) == "expired_api_key"
        assert (await ask("GET", f"/admin/keys/{id}"))[1]["state"] == "expired"


def kept_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


def record(client: str, *, charged: int, error: bool = False) -> Record:
    return Record(
        request_id=f"r{charged}",
        at=NOW,
        client=client,
        endpoint="chat/completions",
        model="m",
        server_id="s",
        stream=False,
        status=502 if error else 200,
        outcome="failed" if error else "completed",
        error="upstream_truncated" if error else None,
        source="server",
        attempts=1,
        queued=0,
        duration=1,
        first_byte=None,
        usage=None if error else Usage(1, 2, 3),
        estimated=False,
        charged=charged,
    )


async def test_budget_that_is_new_counts_what_was_spent() -> None:
    async with gateway() as ask:
        await ask.make("alice")
        ask.gateway.store.keep_records([record("alice", charged=70)])
        _, changed = await ask("PATCH", "/admin/keys/alice", {"budget_tokens": 60, "budget_period": "total"})
        assert changed["budget"]["spent"] == 70
        assert changed["state"] == "exhausted"
        _, changed = await ask("PATCH", "/admin/keys/alice", {"budget_tokens": 100})
        assert (changed["budget"]["left"], changed["state"]) == (30, "active")
        _, changed = await ask("PATCH", "/admin/keys/alice", {"budget_tokens": None})
        assert changed["budget"] is None


async def test_rotation_has_a_grace_period() -> None:
    async with gateway() as ask:
        id, old = await ask.make("alice", requests_per_minute=3)
        status, made = await ask("POST", f"/admin/keys/{id}/rotate", {"grace": 60})
        assert (status, made["id"], made["version"], made["previous_until"]) == (200, id, 2, NOW + 60)
        new = made["key"]
        assert (ask.opens(old), ask.opens(new)) == ("alice", "alice")
        ask.now += 60
        assert (ask.opens(old), ask.opens(new)) == ("revoked_api_key", "alice")
        assert (await ask("GET", "/admin/keys/alice"))[1]["previous_until"] is None
        status, made = await ask("POST", f"/admin/keys/{id}/rotate", {"grace": 0})
        assert (ask.opens(old), ask.opens(new), ask.opens(made["key"])) == (
            "invalid_api_key",
            "revoked_api_key",
            "alice",
        )
        assert (await ask("POST", f"/admin/keys/{id}/rotate"))[1]["previous_until"] == ask.now + 3600
        assert [event.kind for event in ask.events] == ["key.created"] + ["key.rotated"] * 3


async def test_revoked_key_stays_revoked_and_its_name_is_free() -> None:
    async with gateway() as ask:
        id, key = await ask.make("alice")
        assert (await ask("DELETE", "/admin/keys/alice"))[1]["state"] == "revoked"
        assert ask.opens(key) == "revoked_api_key"
        assert (await ask("DELETE", f"/admin/keys/{id}"))[0] == 200
        assert (await ask("DELETE", "/admin/keys/alice"))[0] == 404
        for method, path in (("PATCH", ""), ("POST", "/rotate")):
            status, body = await ask(method, f"/admin/keys/{id}{path}", {})
            assert (status, body["error"]["code"]) == (409, "key_revoked")
        other, _ = await ask.make("alice")
        assert other != id
        assert [event.kind for event in ask.events] == ["key.created", "key.revoked", "key.created"]


async def test_change_names_what_changed() -> None:
    async with gateway() as ask:
        _, key = await ask.make("alice", expires=NOW + 100, models=["a", "b"])
        fields = {"expires": None, "models": ["b"], "priority": "high", "requests_per_minute": 7, "keep_content": True}
        status, changed = await ask("PATCH", "/admin/keys/alice", fields)
        assert status == 200
        assert {name: changed[name] for name in ("expires", "models", "priority", "keep_content")} == {
            "expires": None, "models": ["b"], "priority": "high", "keep_content": True
        }  # fmt: skip
        assert changed["requests"] == {"limit": 7, "remaining": 7, "reset": 0}
        assert ask.opens(key) == "alice"
        assert ask.events[-1].details["changes"]["priority"] == {"before": "normal", "after": "high"}
        status, same = await ask("PATCH", "/admin/keys/alice", {"priority": "high"})
        assert (status, same["version"]) == (200, 2)
        assert len(ask.events) == 2


async def test_versions_guard_changes() -> None:
    async with gateway() as ask:
        await ask.make("alice")
        await ask("GET", "/admin/keys/alice")
        tag = ask.headers["ETag"]
        assert (await ask("GET", "/admin/keys/alice", If_None_Match=tag))[0] == 304
        assert (await ask("PATCH", "/admin/keys/alice", {"priority": "low"}, If_Match=tag))[0] == 200
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
            status, body = await ask(method, f"/admin/keys/alice{path}", {}, If_Match=tag)
            assert (status, body["error"]["code"]) == (412, "version_mismatch")
        assert (await ask("DELETE", "/admin/keys/alice", If_Match="*"))[0] == 200


async def test_changes_at_once_lose_nothing() -> None:
    async with gateway() as ask:
        await ask.make("alice")
        fields = [{"priority": "high"}, {"requests_per_minute": 5}, {"models": ["m"]}, {"keep_content": True}]
        async with trio.open_nursery() as nursery:
            for each in fields:
                nursery.start_soon(ask, "PATCH", "/admin/keys/alice", each)
        _, found = await ask("GET", "/admin/keys/alice")
        assert (found["version"], found["priority"], found["models"]) == (5, "high", ["m"])
        assert found["requests"]["limit"] == 5
        assert found["keep_content"]


OWN = "brought-by-the-operator-1"


async def test_own_key_is_taken() -> None:
    async with gateway() as ask:
        status, made = await ask("POST", "/admin/keys", {"name": "alice", "key": OWN})
        assert (status, made["key"], made["hint"]) == (201, None, "or-1")
        assert ask.opens(OWN) == "alice"
        assert OWN not in repr(ask.events)


TAKEN = [
    ({"name": "alice"}, "name"),
    ({"name": "written"}, "name"),
    ({"name": "new", "key": OWN}, "key"),
]


@pytest.mark.parametrize(("wanted", "param"), TAKEN)
async def test_names_and_keys_are_taken_once(wanted: dict[str, object], param: str) -> None:
    async with gateway() as ask:
        await ask.make("alice", key=OWN)
        status, body = await ask("POST", "/admin/keys", wanted)
        assert (status, body["error"]["code"], body["error"]["param"]) == (409, "key_exists", param)
        assert OWN not in msgspec.json.encode(body).decode()


async def test_admin_key_opens_nothing_else() -> None:
    admin_key = "an-admin-key-of-some-length"
    config = msgspec.structs.replace(CONFIG, auth=Auth(admin_key=admin_key))
    async with gateway(config=config) as ask:
        status, body = await ask("POST", "/admin/keys", {"name": "alice", "key": admin_key}, X_API_Key=admin_key)
        assert (status, body["error"]["code"]) == (409, "key_exists")
        assert ask.opens(admin_key) == "invalid_api_key"


async def test_client_key_becomes_no_admin_key(tmp_path: Path) -> None:
    async with gateway(tmp_path) as ask:
        await ask.make("alice", key=OWN)
        status, body = await ask("GET", "/admin/keys", X_API_Key=OWN)
        assert (status, body["error"]["code"]) == (403, "admin_forbidden")
    config = msgspec.structs.replace(CONFIG, auth=Auth(admin_key=OWN))
    store = Store.open(tmp_path, config.store, lambda: NOW)
    with pytest.raises(ValueError, match="is also the client key of `alice`"):
        Asked(config, store)
    store.close()
    await store.write()


WRONG: list[tuple[dict[str, object], str]] = [
    ({}, "name"),
    ({"name": "two words"}, "name"),
    ({"name": "a", "key": "too-short"}, "key"),
    ({"name": "a", "key": "with blanks in between, long"}, "key"),
    ({"name": "a", "requests_per_minute": 0}, "requests_per_minute"),
    ({"name": "a", "tokens_per_minute": "many"}, "tokens_per_minute"),
    ({"name": "a", "models": ["ok", "not ok"]}, "models[1]"),
    ({"name": "a", "priority": "highest"}, "priority"),
    ({"name": "a", "expires": NOW}, "expires"),
    ({"name": "a", "expires": 1e300}, "expires"),
    ({"name": "a", "budget_tokens": -1}, "budget_tokens"),
    ({"name": "a", "budget_period": "year"}, "budget_period"),
]


@pytest.mark.parametrize(("wanted", "param"), WRONG)
async def test_wrong_fields_are_named(wanted: dict[str, object], param: str) -> None:
    async with gateway() as ask:
        status, body = await ask("POST", "/admin/keys", wanted)
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_request", param)
        assert "regex" not in body["error"]["message"]
        key = wanted.get("key")
        assert not isinstance(key, str) or key not in body["error"]["message"]
        assert len(list(ask.gateway.keys)) == 0


async def test_written_keys_are_read_only() -> None:
    async with gateway() as ask:
        status, found = await ask("GET", "/admin/keys/written")
        assert (status, found["origin"], found["requests"]["limit"]) == (200, "configuration", 5)
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
            status, body = await ask(method, f"/admin/keys/written{path}", {})
            assert (status, body["error"]["code"]) == (409, "configured_key")
        assert (await ask("GET", "/admin/keys/nobody"))[0] == 404


async def test_key_that_cannot_be_saved_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as ask:
        _, key = await ask.make("alice")

        async def full(self: Store, key: SavedKey) -> None:
            raise ApiError(errors.STORE_UNAVAILABLE, "The disk is full")

        monkeypatch.setattr(Store, "save_key", full)
        assert (await ask("POST", "/admin/keys", {"name": "bob"}))[0] == 503
        assert (await ask("DELETE", "/admin/keys/alice"))[0] == 503
        assert (await ask("POST", "/admin/keys/alice/rotate", {"grace": 0}))[0] == 503
        assert ask.opens(key) == "alice"
        assert [event.kind for event in ask.events] == ["key.created"]
        assert not ask.gateway.keys.named("bob")


async def test_lists_are_filtered_sorted_and_cut() -> None:
    async with gateway() as ask:
        for number, name in enumerate(["carol", "alice", "bob", "dan", "eve"]):
            ask.now = NOW + number
            await ask.make(name, models=["m"] if name in ("alice", "bob") else ["other"], budget_tokens=10 + number)
        await ask("DELETE", "/admin/keys/eve")

        async def names(query: str) -> list[str]:
            status, found = await ask("GET", f"/admin/keys?{query}")
            assert status == 200, found
            return [key["name"] for key in found["keys"]]

        assert await names("origin=issued") == ["carol", "alice", "bob", "dan", "eve"]
        assert await names("sort=name&order=desc") == ["written", "eve", "dan", "carol", "bob", "alice"]
        assert await names("model=m&state=active") == ["alice", "bob", "written"]
        assert await names("state=revoked") == ["eve"]
        assert await names("text=AL") == ["alice"]
        seen, query = [], "sort=name&limit=2"
        while True:
            _, found = await ask("GET", f"/admin/keys?{query}")
            seen += [key["name"] for key in found["keys"]]
            assert found["total"] == 6
            if found["next_cursor"] is None:
                break
            query = f"sort=name&limit=2&cursor={found['next_cursor']}"
        assert seen == ["alice", "bob", "carol", "dan", "eve", "written"]
        for wrong in ("sort=colour", "limit=0", "cursor=x", "colour=red", "state=active&state=revoked"):
            assert (await ask("GET", f"/admin/keys?{wrong}"))[0] == 400


async def test_first_key_closes_the_gateway() -> None:
    async with gateway(config=Config(engine=Engine(bolt=False))) as ask:
        assert not ask.gateway.keys.required
        for name, closes in (("alice", True), ("bob", False)):
            _, made = await ask("POST", "/admin/keys", {"name": name})
            assert made["closes"] is closes
            assert ask.gateway.keys.required
        await ask("DELETE", "/admin/keys/alice")
        assert ask.gateway.keys.required
        _, described = await ask("GET", "/openapi.json")
        assert {} not in described["paths"]["/v1/chat/completions"]["post"]["security"]


async def test_wrong_admin_keys_run_into_the_limit() -> None:
    async with gateway() as ask:
        found = [(await ask("GET", "/admin/keys", X_API_Key=f"wrong-{number}"))[0] for number in range(25)]
        assert found == [401] * 20 + [429] * 5
        assert (await ask("GET", "/admin/keys"))[0] == 429
        assert [(event.kind, event.subject, event.details) for event in ask.events] == [
            ("auth.refused", "loopback", {"failures": 21})
        ]


async def test_deep_json_is_refused() -> None:
    async with gateway() as ask:
        body = msgspec.Raw(b'{"name": "a", "models": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        status, answer = await ask("POST", "/admin/keys", body)
        assert status == 400
        assert answer["error"]["type"] == "invalid_request_error"
