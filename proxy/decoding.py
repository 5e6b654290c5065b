"""Decoding request bodies: msgspec's complaint becomes an error that names the field."""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

S = TypeVar("S")


def decode_body(body: bytes, decode: Callable[[bytes], S]) -> S:
    """`decode(body)`. Raises `ApiError`: 400 `invalid_request` with the field's path, or 400 `invalid_json`."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(errors.INVALID_REQUEST, str(error), param=_field_of(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(errors.INVALID_JSON, f"The body is not valid JSON: {error}") from None
    except RecursionError:
        raise ApiError(errors.INVALID_JSON, "The body is JSON that is nested too deeply") from None


def with_model(body: bytes, model: str) -> bytes:
    """`body`, a JSON object, asking for `model`. All other values keep their bytes.

    A name that stands twice stands once, and none is left that only a reader without regard to case would take for `model`.
    """
    members = _decode_members(body)
    named = {name: value for name, value in members.items() if name == "model" or name.lower() != "model"}
    named["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(named)


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _field_of(complaint: str) -> str | None:
    """The field msgspec's message is about: "... - at `$.messages[0].role`" or "missing required field `model`"."""
    if " - at `$." in complaint:
        return complaint.rsplit(" - at `$.", 1)[1].rstrip("`")
    if "required field `" in complaint:
        return complaint.split("required field `", 1)[1].split("`", 1)[0]
    return None
