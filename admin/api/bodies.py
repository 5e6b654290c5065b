"""Request bodies of the control plane."""

from quart import Request
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

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
