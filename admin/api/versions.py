"""Entity tags of servers and keys: which version of one a reader has seen, and whether a change may still be made.

A tag is `"ENTRY-VERSION"` after a change, and `"ENTRY-VERSION.DIGEST"` of a whole reply: the digest covers what changes by
itself, like its health. `If-Match` looks at the part before the dot, since only what people set can be overwritten.
"""

from hashlib import blake2b
from typing import Protocol

from quart import Request, Response
from quiver.schemas import errors
from quiver.schemas.errors import ApiError


class Versioned(Protocol):
    """What people set, with when it was first made (Unix time) and the number of the version."""

    @property
    def created(self) -> float: ...

    @property
    def version(self) -> int: ...


def tag_of(entry: Versioned) -> str:
    """The tag of what people set. What was removed and made again does not get its old ones."""
    return f"{round(entry.created * 1000):x}-{entry.version}"


def refuse_changed(request: Request, entry: Versioned) -> None:
    """Raise `ApiError` (412) when `request` is meant for another version."""
    if "If-Match" not in request.headers:
        return
    wanted = request.if_match
    seen = {tag.partition(".")[0] for tag in wanted if tag}  # the empty tag comes as None
    if not wanted.star_tag and tag_of(entry) not in seen:
        raise ApiError(errors.VERSION_MISMATCH, f"It was changed meanwhile, and is at version {entry.version} now")


def tagged(response: Response, entry: Versioned) -> Response:
    """`response` to a change, with the new tag."""
    response.set_etag(tag_of(entry))
    return response


async def conditional(request: Request, response: Response, entry: Versioned) -> Response:
    """`response` with the tag of its whole body, or 304 when the reader has it."""
    body = await response.get_data(as_text=False)
    tag = f"{tag_of(entry)}.{blake2b(body, digest_size=8).hexdigest()}"
    response.set_etag(tag)
    if "If-None-Match" in request.headers and request.if_none_match.contains_weak(tag):
        response.status_code = 304
        response.set_data(b"")
    return response
