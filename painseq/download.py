"""Fetch public files once, into a cache, checked by sha256."""

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
    """`$PAINSEQ_CACHE`, else `painseq` in `$XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("PAINSEQ_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "painseq"


def sha256_of(path: Path) -> str:
    """Digest of a whole file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, sha256: str, name: str | None = None) -> Path:
    """The file at `url`, from the cache or downloaded into it; it appears there only when complete and right.

    Args:
        url: an http or https address.
        sha256: what the file must have, in hex.
        name: file name in the cache; the address's last part by default.

    Raises:
        PainseqError: the file cannot be downloaded or stored, or it (or the cached one) has another sha256.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise PainseqError(f"Only http and https addresses are fetched, not {url!r}.")
    sha256 = sha256.lower()
    path = cache_dir() / (name or Path(urllib.parse.unquote(parts.path)).name or sha256)
    by_hand = f"Or fetch it elsewhere and put it at {path} (sha256 {sha256})."
    if path.is_file():
        found = sha256_of(path)
        if found != sha256:
            raise PainseqError(f"{path} has sha256 {found}, not {sha256}. Delete it, and it is fetched from {url}.")
        return path
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            part = Path(file.name)
            request = urllib.request.Request(url, headers={"User-Agent": "painseq"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                shutil.copyfileobj(answer, file)
        found = sha256_of(part)
        if found != sha256:
            raise PainseqError(f"{url} gave a file with sha256 {found}, not {sha256}; it is not used. {by_hand}")
        part.replace(path)
    except OSError as error:
        raise PainseqError(f"{url} cannot be fetched into {path.parent}: {error}. {by_hand}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return path
