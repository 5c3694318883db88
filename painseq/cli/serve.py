"""`painseq serve`: serve models and a page to browsers."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.arguments import add_device, add_locator, add_model, chosen_locator, chosen_predictors
from painseq.errors import PainseqError
from painseq.runs import short_names

TOKEN = "PAINSEQ_TOKEN"
NEEDED = ("fastapi", "uvicorn", "websockets", "python_multipart")


def main(argv: Sequence[str]) -> int:
    """Run the command until it is stopped."""
    args = _parser().parse_args(argv)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PainseqError(f'{", ".join(missing)} is not installed: pip install "painseq[serve]".')
    models = chosen_predictors(args)
    from painseq.live import LiveSettings
    from painseq.serve import ServeOptions, serve
    from painseq.serve.models import NOT_MEDICAL
    from painseq.serve.options import LOOPBACK

    options = ServeOptions(
        token=None if args.no_token else os.environ.get(TOKEN) or secrets.token_urlsafe(),
        hosts=(*LOOPBACK, args.host.lower(), *(host.lower() for host in args.allow_host)),
        max_upload_bytes=args.max_upload_mib * 2**20,
        max_video_s=args.max_video_s,
        max_sessions=args.max_sessions,
        threads=args.threads,
        live=LiveSettings(window_s=args.window_s),
        locator=chosen_locator(args),
    )

    def tell(address: str) -> None:
        sys.stdout.write(f"{address}\n{NOT_MEDICAL}\n")
        sys.stdout.flush()

    names = [*models] if args.average else short_names([Path(name) for name in models])
    logging.getLogger("painseq.serve").setLevel(logging.INFO if args.log_requests else logging.WARNING)
    serve(dict(zip(names, models.values(), strict=True)), options, args.host, args.port, tell)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq serve",
        description="Serve models and a page to browsers, until it is stopped. The address of the page, with its "
        f"token, is printed once. The token is new at each start, unless the environment variable {TOKEN} holds one.",
    )
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="listen at this address; default: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="listen at this port; 0: any; default: %(default)s")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer when called by this name, such as that of a proxy; default: only by the names of this machine",
    )
    parser.add_argument("--no-token", action="store_true", help="ask for no token; only if nobody else can reach it")
    parser.add_argument("--threads", type=int, default=2, help="threads that predict streams; default: %(default)s")
    parser.add_argument(
        "--window-s", type=float, default=10.0, help="length of the clips of a stream, in seconds; default: %(default)s"
    )
    parser.add_argument(
        "--max-upload-mib", type=int, default=64, metavar="MIB", help="largest upload; default: %(default)s MiB"
    )
    parser.add_argument("--max-video-s", type=float, default=120.0, help="longest video, in seconds; default: 120")
    parser.add_argument("--max-sessions", type=int, default=16, help="streams at the same time; default: %(default)s")
    parser.add_argument("--log-requests", action="store_true", help="log method, path and time of each request")
    add_device(parser)
    add_locator(parser)
    return parser
