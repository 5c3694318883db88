"""Download public files into a cache and verify their sha256."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from painseq.errors import PainseqError
from painseq.files import replacing

HOSTS = (
    "download.pytorch.org",
    "github.com",
    "githubusercontent.com",
    "hf.co",
    "huggingface.co",
    "storage.googleapis.com",
)
"""Hosts, with their subdomains, that files are downloaded from; `$PAINSEQ_DOWNLOAD_HOSTS` adds others."""

ALLOW_HOSTS = "PAINSEQ_DOWNLOAD_HOSTS"
"""Environment variable: further hosts, separated by spaces or commas."""

MAX_BYTES = 4 * 2**30
"""A larger file is not downloaded."""

_TIMEOUT_S = 60
_BLOCK_BYTES = 2**20
log = logging.getLogger("painseq")


def cache_dir() -> Path:
    """Return `$PAINSEQ_CACHE` if set, otherwise `painseq` in `$XDG_CACHE_HOME` or `~/.cache`."""
    configured = os.environ.get("PAINSEQ_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "painseq"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, sha256: str, name: str | None = None, from_record: bool = False) -> Path:
    """Return the path of the cached file at `url`; download it first if needed.

    The file appears in the cache only when it is complete and its sha256 matches. Before a download, the log says what
    is fetched, from where, and how large it is.

    Args:
        url: an http or https address, at one of `HOSTS` or of the hosts in `$PAINSEQ_DOWNLOAD_HOSTS`.
        sha256: expected digest of the file, in hex.
        name: file name in the cache; the last part of the address by default.
        from_record: the address was read from a checkpoint or a store, so its author chose it, not the user: only the
            hosts in `$PAINSEQ_DOWNLOAD_HOSTS` are called.

    Raises:
        PainseqError: the host is not allowed, the file is larger than `MAX_BYTES`, cannot be downloaded or stored, or
            its sha256 (or the cached file's) does not match.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise PainseqError(f"{url!r} is no address: {error}.") from error
    file_name = urllib.parse.unquote(parts.path).rpartition("/")[2]
    if parts.scheme not in ("http", "https") or not file_name.isprintable():
        raise PainseqError(f"url must be an http or https address of a file, not {url!r}.")
    sha256 = sha256.lower()
    path = cache_dir() / (name or file_name or sha256)
    manual_hint = f"Alternatively download it elsewhere and put it at {path} (sha256 {sha256})."
    if path.is_file():
        found = sha256_of(path)
        if found != sha256:
            raise PainseqError(f"{path} has sha256 {found}, not {sha256}. Delete it to download it again from {url}.")
        return path
    _check_host(url, from_record, manual_hint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            with partial.open("wb") as file:
                found = _download(url, path, file)
            if found != sha256:
                raise PainseqError(f"{url} returned a file with sha256 {found}, not {sha256}; rejected. {manual_hint}")
    except (OSError, http.client.HTTPException) as error:
        raise PainseqError(f"{url} cannot be downloaded into {path.parent}: {error}. {manual_hint}") from error
    return path


def _download(url: str, path: Path, file: IO[bytes]) -> str:
    """Write what is at `url` into `file`, and return its sha256."""
    request = urllib.request.Request(url, headers={"User-Agent": "painseq"})
    sha256, count = hashlib.sha256(), 0
    with urllib.request.build_opener(_KnownHosts).open(request, timeout=_TIMEOUT_S) as response:
        told = response.headers.get("Content-Length") or ""
        total = int(told) if re.fullmatch(r"\d{1,18}", told) else None
        size = "of unknown size" if total is None else f"{total / 1e6:.1f} MB"
        if total is not None and total > MAX_BYTES:
            raise PainseqError(f"{url} is {size}; files above {MAX_BYTES / 1e6:.0f} MB are not downloaded.")
        log.info("Downloading %s (%s) to %s.", url, size, path)
        while block := response.read(_BLOCK_BYTES):
            count += len(block)
            if count > MAX_BYTES:
                raise PainseqError(f"{url} is larger than {MAX_BYTES / 1e6:.0f} MB, so its download was stopped.")
            sha256.update(block)
            file.write(block)
    return sha256.hexdigest()


def _check_host(url: str, from_record: bool, manual_hint: str = "") -> None:
    """Raise a PainseqError unless the host of `url` may be called."""
    host = (urllib.parse.urlsplit(url).hostname or "").lower()
    allowed = [name.lower() for name in re.split(r"[\s,]+", os.environ.get(ALLOW_HOSTS, "")) if name]
    if any(host == name or host.endswith(f".{name}") for name in (allowed if from_record else (*allowed, *HOSTS))):
        return
    why = (
        "A checkpoint or store names this address; it is not called unasked"
        if from_record
        else f"{host} is not one of the hosts that painseq downloads from ({', '.join(HOSTS)})"
    )
    raise PainseqError(
        f"{url} is not downloaded. {why}. To allow it, set the environment variable {ALLOW_HOSTS}={host}. {manual_hint}"
    )


class _KnownHosts(urllib.request.HTTPRedirectHandler):
    """Follow redirects to known hosts only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_host(newurl, from_record=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
