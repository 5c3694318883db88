"""The application: its routes, and how it answers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from painseq import __version__
from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.serve.api_page import api_page
from painseq.serve.guard import Guard
from painseq.serve.models import NOT_MEDICAL, described
from painseq.serve.options import ServeOptions
from painseq.serve.service import Service
from painseq.serve.stream import run_stream
from painseq.serve.uploads import keep, predict_upload
from painseq.serve.worker import QueueFull

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "a video or a picture"},
                        "model": {"type": "array", "items": {"type": "string"}, "description": "names; default: all"},
                    },
                }
            }
        },
    },
    "responses": {"400": {}, "401": {}, "408": {}, "413": {}, "422": {}, "429": {}},
}
_CHECK_S = 0.5


def app(predictors: Mapping[str, Predictor], options: ServeOptions) -> FastAPI:
    """Return the application of a service, for an ASGI server; `painseq.serve.serve` runs one.

    Args:
        predictors: name -> model, as they are shown.
        options: token, names and limits.

    Raises:
        PainseqError: a model that cannot predict what a service is sent.
    """
    service = Service(predictors, options)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.stop()

    made = FastAPI(
        title="painseq",
        version=__version__,
        description=NOT_MEDICAL,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    made.add_middleware(Guard, options=options)
    made.add_exception_handler(PainseqError, _painseq_error)
    made.add_exception_handler(HTTPException, _http_error)
    made.add_exception_handler(RequestValidationError, _wrong_request)
    made.add_exception_handler(Exception, _failure)
    _add_routes(made, service)
    _add_page(made)
    return made


def _add_routes(made: FastAPI, service: Service) -> None:
    @made.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service runs."""
        return {"status": "ok", "painseq": __version__, "models": len(service.models)}

    @made.get("/models")
    async def models() -> list[dict[str, Any]]:
        """The models: classes, whom they were fitted on in numbers, and limits."""
        return [described(name, model) for name, model in service.models.items()]

    @made.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await run_stream(socket, service)

    @made.post("/predict", openapi_extra=UPLOAD)
    async def predict(request: Request) -> JSONResponse:
        """Predict a video or a picture: the JSON of `painseq predict --json`.

        For one model it is a list; for several, name -> list, or name -> error.
        """
        if len(service.folders) > service.options.waiting:
            raise QueueFull("The service is busy with other uploads. Try again in a few seconds.")
        folder = Path(tempfile.mkdtemp(prefix="painseq-"))
        service.folders.add(folder)
        try:
            return JSONResponse(await _predicted(request, service, folder))
        finally:
            service.folders.discard(folder)
            shutil.rmtree(folder, ignore_errors=True)


async def _predicted(request: Request, service: Service, folder: Path) -> Any:
    async with request.form(max_files=1, max_fields=16) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "The form has no file. Send a video or a picture as the field `file`.")
        models = service.chosen([value for value in form.getlist("model") if isinstance(value, str)])
        sent = file.file

        def job() -> dict[str, Any]:
            return predict_upload(models, keep(sent, folder, service.options), service.options)

        future = service.uploads.submit(job)
        waiting = asyncio.wrap_future(future)
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_CHECK_S)
                if not future.running() and await request.is_disconnected():
                    future.cancel()
            told = await waiting
        finally:
            # The job reads the file, so the file must outlive it; it ends soon without its client.
            if not future.cancel() and not future.done():
                await asyncio.wait({waiting})
        return told if len(models) > 1 else next(iter(told.values()))


def _add_page(made: FastAPI) -> None:
    folder = resources.files("painseq.serve") / "page"
    for path, (name, kind) in PAGE.items():
        made.add_api_route(path, _file(folder.joinpath(name).read_bytes(), kind), include_in_schema=False)
    described = _file(api_page(made.openapi()).encode(), "text/html")
    made.add_api_route("/api", described, include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[], Response]:
    def answer() -> Response:
        return Response(content, media_type=kind)

    return answer


async def _painseq_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 429 if isinstance(error, QueueFull) else 422)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))


async def _wrong_request(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The request has a wrong value. GET /openapi.json describes what is taken."}, 422)


async def _failure(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The service failed; its log says why."}, 500)
