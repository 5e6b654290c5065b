"""The API's description agrees with itself and with the catalogue."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from quiver.admin.api.openapi import description
from quiver.admin.api.operations import OPERATIONS
from quiver.schemas import errors

DOCUMENT = msgspec.json.decode(
    msgspec.json.encode(description(keys_required=False, admin_key_required=False, local=False))
)


def references(node: Any) -> Iterator[str]:
    """Every `$ref` and every target of a discriminator."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            elif name == "discriminator":
                yield from value.get("mapping", {}).values()
            else:
                yield from references(value)


def resolved(reference: str) -> Any:
    node = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def test_references_resolve() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 20
    assert all(resolved(reference) for reference in found)


def test_no_schema_is_unused() -> None:
    used = {reference.rsplit("/", 1)[1] for reference in references(DOCUMENT)}
    assert set(DOCUMENT["components"]["schemas"]) - used == set()
    assert set(DOCUMENT["components"]["responses"]) - used == set()


@pytest.mark.parametrize("kind", errors.CATALOGUE, ids=lambda kind: kind.code)
def test_every_error_is_documented(kind: errors.ErrorKind) -> None:
    response = DOCUMENT["components"]["responses"][f"Error{kind.status}"]
    assert f"`{kind.code}`: {kind.meaning}" in response["description"]
    example = response["content"]["application/json"]["examples"][kind.code]["value"]
    assert msgspec.convert(example, errors.ErrorEnvelope).error.code == kind.code


def test_operations_have_names_of_their_own() -> None:
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.request], ids=lambda each: each.id)
def test_examples_are_valid_requests(operation: Any) -> None:
    msgspec.convert(operation.example, operation.request)


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("admin_key", [True, False])
def test_keys_are_asked_for_when_set(keys: bool, admin_key: bool) -> None:
    paths = description(keys_required=keys, admin_key_required=admin_key, local=False)["paths"]
    for path, required in [("/v1/models", keys), ("/admin/servers", admin_key)]:
        security = paths[path]["get"]["security"]
        assert ({} in security) is not required
        assert {"bearer": []} in security
    assert "security" not in paths["/health"]["get"]


def test_request_headers_are_named() -> None:
    operation = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
    told = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    assert told["X-Quiver-Priority"] == {"enum": ["critical", "high", "normal", "low"]}
    assert {"X-Session-ID", "X-Quiver-Share", "Cache-Control"} < set(told)


def test_registration_answers_created() -> None:
    assert {"200", "201", "400", "503"} <= set(DOCUMENT["paths"]["/admin/register"]["post"]["responses"])
