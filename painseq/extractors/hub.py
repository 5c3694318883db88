"""Download weights from the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import timm
from huggingface_hub import DryRunFileInfo, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

from painseq.download import MAX_BYTES, sha256_of
from painseq.errors import PainseqError

FILES = ("model.safetensors", "pytorch_model.bin")
FAILURES = (OSError, HTTPError, ValueError, RuntimeError)
"""What a download raises: no network and no file, the errors of the client's own library, a name that cannot be one of
a repository, and those of the hub's storage."""
SHA256 = re.compile("[0-9a-f]{64}")
log = logging.getLogger("painseq")


def hub_file(repository: str, revision: str | None = None, names: Sequence[str] = FILES) -> Path:
    """Return the path of a repository's weights in the hub's cache; download them first if needed.

    Before a download, the log says what is fetched, from where, and how large it is. The file must have the sha256 that
    the hub publishes; a warning says so if it publishes none.

    Args:
        repository: "OWNER/NAME".
        revision: branch, tag or commit; None is the main branch.
        names: file names, of which the first that exists is taken.

    Raises:
        PainseqError: the file cannot be downloaded, is too large, or has another sha256.
    """
    path = _downloaded(repository, revision, names)
    # Only the first link: its target in the hub's cache may itself be a link.
    published = path.readlink().name if path.is_symlink() else ""
    if not SHA256.fullmatch(published):
        log.warning("hub:%s: the hub's cache has no sha256 for %s, so the file is not verified.", repository, path.name)
    elif sha256_of(path) != published:
        raise PainseqError(
            f"hub:{repository}: {path} does not have the sha256 that the hub publishes for it, {published}, so it is "
            f"not used. Delete {path.resolve()} to download it again."
        )
    return path


def announce_timm(model: str) -> None:
    """Log from where timm's pretrained weights of a model are fetched, and how large they are if known.

    Raises:
        PainseqError: they are too large.
    """
    config = timm.get_pretrained_cfg(model)
    if config is None or config.hf_hub_id is None:
        log.info("timm's pretrained weights of %s: %s.", model, getattr(config, "url", None) or "no source known")
        return
    repository, _, revision = config.hf_hub_id.partition("@")
    # Without a network, timm's own error says so.
    with suppress(*FAILURES):
        _announce(repository, config.hf_hub_filename or FILES[0], revision or None)


def _announce(repository: str, name: str, revision: str | None) -> None:
    """Log a file that is to be downloaded; an error if it is too large."""
    found = hf_hub_download(repository, name, revision=revision, dry_run=True)
    assert isinstance(found, DryRunFileInfo)
    if not found.will_download:
        return
    size_bytes = found.file_size or 0
    size = f"{size_bytes / 1e6:.1f} MB" if size_bytes else "of unknown size"
    if size_bytes > MAX_BYTES:
        raise PainseqError(
            f"{name} of {repository} on the hub is {size}; files above {MAX_BYTES / 1e6:.0f} MB are not downloaded. "
            "Download it elsewhere and name its path."
        )
    log.info("Downloading %s of %s (%s) from the Hugging Face hub.", name, repository, size)


def _downloaded(repository: str, revision: str | None, names: Sequence[str]) -> Path:
    missing: list[str] = []
    for name in names:
        try:
            _announce(repository, name, revision)
            return Path(str(hf_hub_download(repository, name, revision=revision)))
        except EntryNotFoundError as error:
            missing.append(f"{name}: {error}")
        except FAILURES as error:
            missing.append(f"{name}: {error}")
            break
    raise PainseqError(
        f"Weights of {repository} could not be downloaded from the hub. {' '.join(missing)} Offline, copy "
        f"{' or '.join(names)} of the repository from elsewhere and start from its path (as .safetensors or .pth); "
        "HF_HUB_OFFLINE=1 uses a copy in the hub's cache without asking the network."
    )
