"""What a service allows, and how much of it."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field, fields

from painseq.errors import PainseqError
from painseq.faces import Locator
from painseq.live import LiveSettings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """Token, names and limits of a service.

    Args:
        token: what every request must show; None: none, for a service that only this machine can reach.
        hosts: names, without a port, by which the service may be called; a request with another `Host` is refused, so
            that no foreign page can reach the service under a name of its own.
        max_upload_bytes: largest body of a request.
        max_message_bytes: largest message of a stream.
        max_pixels: most pixels of an uploaded picture, or of a frame of an uploaded video.
        max_stream_pixels: most pixels of a streamed picture.
        max_video_s: longest video, in seconds.
        max_sessions: streams at the same time.
        requests_per_s: requests a second of one address, on average.
        burst: requests of one address at once.
        messages_per_s: messages a second of one stream, on average, and twice as many at once.
        body_s: seconds in which the body of a request must have come.
        head_s: seconds in which the head of a request, or the first message of a stream, must have come.
        idle_s: seconds without a message after which a stream is ended.
        waiting: uploads that wait for their turn; further ones are refused with 429.
        threads: threads that predict streams; one more predicts uploads.
        live: how streams are predicted.
        locator: finds faces instead of the models' own locators.

    Raises:
        PainseqError: a token that is short or cannot stand in a header, or a limit that is not above 0.
    """

    token: str | None
    hosts: tuple[str, ...] = LOOPBACK
    max_upload_bytes: int = 64 * 2**20
    max_message_bytes: int = 2**20
    max_pixels: int = 4096 * 4096
    max_stream_pixels: int = 1920 * 1080
    max_video_s: float = 120.0
    max_sessions: int = 16
    requests_per_s: float = 20.0
    burst: int = 60
    messages_per_s: float = 60.0
    body_s: float = 60.0
    head_s: float = 10.0
    idle_s: float = 60.0
    waiting: int = 4
    threads: int = 2
    live: LiveSettings = field(default_factory=LiveSettings)
    locator: Locator | None = None

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < 16:
            raise PainseqError(
                f"The token has {len(self.token)} characters; it must have 16 or more. `python -c 'import secrets; "
                "print(secrets.token_urlsafe())'` makes one."
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise PainseqError("The token has a space, or characters that are not ASCII; a header cannot hold it.")
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name == "waiting" else 1e-9
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= least):
                raise PainseqError(f"ServeOptions: {each.name} is {value}; it must be more than 0.")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which no other machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
