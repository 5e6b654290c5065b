"""What every reply of the control plane says to browsers: what a page may do, which pages of other origins may read it, and
that nothing of it is kept. And how much of a request is taken.
"""

from collections.abc import Iterable

from quart import Response, request
from quart_trio import QuartTrio
from quiver.proxy.access.limits import Header
from quiver.proxy.gateway import Gateway
from werkzeug.datastructures import Headers

from .lock import header_lookup

DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# No page of ours needs any of these, nor does one that is shown inside them.
PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"


def harden(app: QuartTrio, gateway: Gateway) -> None:
    """Give `app` the limits of the inference paths, and its replies their headers."""
    server = gateway.config.server
    app.config["MAX_CONTENT_LENGTH"] = server.max_body
    app.config["BODY_TIMEOUT"] = server.body_timeout

    @app.before_request
    async def answer_preflight() -> Response | None:
        if gateway.cors is None or request.method != "OPTIONS":
            return None
        said = gateway.cors.preflight(header_lookup(request))
        return None if said is None else Response("", 200, Headers(_decoded(said)))

    @app.after_request
    async def add_headers(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", DATA_POLICY)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Permissions-Policy"] = PERMISSIONS
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        if server.hsts and request.scheme == "https":
            headers["Strict-Transport-Security"] = f"max-age={server.hsts}"
        if request.endpoint != "static":
            headers["Cache-Control"] = "no-store"
        cors = gateway.cors
        if cors is not None and "Vary" not in headers:
            origin = request.headers.get("Origin")
            headers.extend(_decoded(cors.headers(None if origin is None else origin.encode("latin-1"))))
        return response


def _decoded(headers: Iterable[Header]) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in headers]
