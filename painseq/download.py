"""Download public files into a cache and verify their sha256."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from painseq.errors import PainseqError

_TIMEOUT_S = 60


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


def fetch(url: str, sha256: str, name: str | None = None) -> Path:
    """Return the path of the cached file at `url`; download it first if needed.

    The file appears in the cache only when it is complete and its sha256 matches.

    Args:
        url: an http or https address.
        sha256: expected digest of the file, in hex.
        name: file name in the cache; the last part of the address by default.

    Raises:
        PainseqError: the file cannot be downloaded or stored, or its sha256 (or the cached file's) does not match.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise PainseqError(f"url must be an http or https address, not {url!r}.")
    sha256 = sha256.lower()
    path = cache_dir() / (name or Path(urllib.parse.unquote(parts.path)).name or sha256)
    manual_hint = f"Alternatively download it elsewhere and put it at {path} (sha256 {sha256})."
    if path.is_file():
        found = sha256_of(path)
        if found != sha256:
            raise PainseqError(f"{path} has sha256 {found}, not {sha256}. Delete it to download it again from {url}.")
        return path
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = Path(file.name)
            request = urllib.request.Request(url, headers={"User-Agent": "painseq"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                shutil.copyfileobj(response, file)
        found = sha256_of(partial)
        if found != sha256:
            raise PainseqError(f"{url} returned a file with sha256 {found}, not {sha256}; rejected. {manual_hint}")
        partial.replace(path)
    except OSError as error:
        raise PainseqError(f"{url} cannot be downloaded into {path.parent}: {error}. {manual_hint}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return path
