"""Who may call, from where, how often and with how much: what stands before every request."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from painseq.serve.options import ServeOptions

log = logging.getLogger("painseq.serve")

PUBLIC = ("/", "/page.css", "/page.js", "/icon.svg", "/api")
"""What a browser fetches before it can show the token; nothing in it is secret."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REMEMBERED_ADDRESSES = 4096
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: host, origin, rate, token, size and time of a body, and the headers of every response.

    A stream shows its token in its first message (`painseq.serve.stream`); all else of it is checked here.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app = app
        self._options = options
        self._rate = Rate(options.requests_per_s, options.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope, Headers(scope=scope))
        if scope["type"] == "websocket":
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        begun = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if refused is None:
            await self._app(scope, _Body(receive, self._options).receive, answer)
        else:
            headers = {"Connection": "close"} | ({"WWW-Authenticate": "Bearer"} if refused[0] == 401 else {})
            await JSONResponse({"error": refused[1]}, refused[0], headers)(scope, receive, answer)
        # No query, no body and no name of a file: they may tell of a person.
        shown = scope["path"] if status < 400 else "-"
        log.info("%s %s %d, %.0f ms", scope["method"], shown, status, 1000 * (time.perf_counter() - begun))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and sentence of why a request is refused; None if it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or name_of(hosts[0]) not in self._options.hosts:
            return 421, "This service is not called by this name. Add it with --allow-host, if it is."
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and not same_origin(headers, hosts[0]):
            return 403, "The request comes from another page than the service's own."
        if not self._rate.takes(scope["client"][0] if scope.get("client") else ""):
            return 429, "Too many requests. Wait a second."
        if scope["type"] == "websocket" or (scope["path"] in PUBLIC and not unsafe):
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        if not is_token(token if kind.lower() == "bearer" else "", self._options.token):
            return 401, "The token is missing or wrong. It is in the address that the service printed at its start."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self._options.max_upload_bytes:
            return 413, too_large(self._options)
        return None


class _Body:
    """Receives the body of a request, within limits of size and time."""

    def __init__(self, receive: Receive, options: ServeOptions) -> None:
        self._receive = receive
        self._options = options
        self._until = time.monotonic() + options.body_s
        self._bytes = 0
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: the body is too large, or too slow.
        """
        if self._is_complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError as error:
            sentence = f"The request took longer than {self._options.body_s:g} s to come."
            raise HTTPException(408, sentence, {"Connection": "close"}) from error
        self._is_complete = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._options.max_upload_bytes:
            raise HTTPException(413, too_large(self._options), {"Connection": "close"})
        return message


class Rate:
    """Token buckets: so many a second on average, and so many at once, for each address.

    Args:
        per_s: on average.
        burst: at once.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def takes(self, address: str = "") -> bool:
        """Count one more, and return whether it is allowed."""
        now = time.monotonic()
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_s)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        if len(self._left) > REMEMBERED_ADDRESSES:
            self._left.popitem(last=False)
        return allowed


def is_token(given: object, token: str | None) -> bool:
    """Whether a token is right, in a time that does not tell how much of it is."""
    if token is None:
        return True
    return isinstance(given, str) and hmac.compare_digest(
        given.encode("utf-8", "backslashreplace"), token.encode("utf-8", "backslashreplace")
    )


def same_origin(headers: Headers, host: str) -> bool:
    """Whether a request comes from a page of this service, or from no page at all."""
    origins = headers.getlist("origin")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    if not origins:
        return True
    scheme, _, netloc = origins[0].partition("://")
    return len(origins) == 1 and scheme in ("http", "https") and netloc.lower() == host.lower()


def name_of(host: str) -> str:
    """Return the name of a `Host` header, without the port; empty if it has none."""
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.path or parts.username is not None else (parts.hostname or "")
    except ValueError:
        return ""


def too_large(options: ServeOptions) -> str:
    """Return the sentence for a body that is too large."""
    return f"The upload is larger than {options.max_upload_bytes / 2**20:g} MiB."
