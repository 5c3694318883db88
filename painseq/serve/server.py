"""Run a service until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from urllib.parse import quote

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.serve.app import app
from painseq.serve.options import ServeOptions, is_loopback

MAX_CONNECTIONS = 2000
STOP_S = 5
MAX_HEAD_BYTES = 16_384


class ImpatientProtocol(H11Protocol):
    """uvicorn's protocol, with a limit on the time in which the head of a request must have come."""

    head_s = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting until the head is complete."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.get_protocol() is self and not self.transport.is_closing():
            self.transport.close()


def serve(
    predictors: Mapping[str, Predictor],
    options: ServeOptions,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str], None] = lambda address: None,
) -> None:
    """Run a service until it is stopped by SIGINT or SIGTERM; requests that run are then finished, for 5 s at most.

    Args:
        predictors: name -> model.
        options: token, names and limits.
        host: address to listen at.
        port: 0 chooses one that is free.
        on_start: told the address of the page, with the token behind its `#`, which no browser sends on.

    Raises:
        PainseqError: no token, and an address that other machines can reach; the address is taken, or is not one of
            this machine.

    Example:
        >>> model = painseq.runtime.load("exported/lstm")
        >>> serve({"lstm": model}, ServeOptions(secrets.token_urlsafe()), on_start=print)
    """
    if options.token is None and not is_loopback(host):
        raise PainseqError(f"Other machines can reach {host}, so a token is needed. Leave --no-token out.")
    application = app(predictors, options)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise PainseqError(f"Cannot listen at {host}, port {port}: {error.strerror or error}.") from error
    with listening:
        on_start(address_of(host, listening.getsockname()[1], options.token))
        server_of(application, options).run(sockets=[listening])


def address_of(host: str, port: int, token: str | None) -> str:
    """Return the address of the page: of this machine itself, where a service listens at all of its addresses."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    return address if token is None else f"{address}#token={quote(token, safe='')}"


def server_of(application: object, options: ServeOptions) -> uvicorn.Server:
    """Return the server that runs an application within the options' limits."""
    protocol = type("Protocol", (ImpatientProtocol,), {"head_s": options.head_s})
    config = uvicorn.Config(
        application,  # type: ignore[arg-type]
        http=protocol,
        ws="websockets-sansio",
        ws_max_size=options.max_message_bytes,
        ws_max_queue=4,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    return uvicorn.Server(config)
