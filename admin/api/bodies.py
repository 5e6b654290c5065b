"""Request bodies of the control plane."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from quart import Request
from quiver.proxy.decoding import decode_body
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

T = TypeVar("T")
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


async def json_body(request: Request, *also: str) -> bytes:
    """The body. It must be declared as JSON, or as one of `also`: pages of other sites cannot send that without being asked
    first. Raises `ApiError` (415).
    """
    if request.mimetype not in (JSON, *also):
        raise ApiError(
            errors.UNSUPPORTED_MEDIA_TYPE,
            f"Send the request with `Content-Type: {JSON}`",
            extra=[(b"accept", ", ".join((JSON, *also)).encode())],
        )
    body: bytes = await request.data
    return body


def explained_body(body: bytes, decode: Callable[[bytes], T], forms: Mapping[str, str]) -> T:
    """`decode(body)`. `forms`: what a field's pattern asks for, in words. Raises `ApiError` (400) with the field at fault; what
    stands in it is not repeated.
    """
    try:
        return decode_body(body, decode)
    except ApiError as error:
        form = forms.get((error.param or "").partition("[")[0])
        if form is None or not ("matching regex" in error.message or "`str` of length" in error.message):
            raise
        raise ApiError(error.kind, f"`{error.param}`: expected {form}", param=error.param) from None
