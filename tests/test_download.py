"""Fetching files into the cache, from a server on this machine."""

import hashlib
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import painseq.download
from painseq.download import ALLOW_HOSTS, cache_dir, fetch
from painseq.errors import PainseqError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Server.asked += 1
        if self.path == "/absent.bin":
            self.send_error(404)
            return
        if self.path == "/elsewhere.bin":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/model.bin")
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/untold.bin":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/short.bin" else CONTENT)

    def log_message(self, format: str, *args: object):
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAINSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(ALLOW_HOSTS, "example.org, 127.0.0.1")
    return tmp_path / "cache"


def test_fetched_once_and_checked(address: str, cache: Path):
    asked = Server.asked
    path = fetch(f"{address}/model.bin", SHA256)
    assert path == cache / "model.bin" and path.read_bytes() == CONTENT
    assert fetch(f"{address}/model.bin", SHA256.upper()) == path
    assert Server.asked == asked + 1
    assert fetch(f"{address}/model.bin", SHA256, name="other.bin") == cache / "other.bin"


def test_a_changed_file_in_the_cache_is_an_error(address: str, cache: Path):
    fetch(f"{address}/model.bin", SHA256).write_bytes(b"changed")
    with pytest.raises(PainseqError) as error:
        fetch(f"{address}/model.bin", SHA256)
    for value in (str(cache / "model.bin"), hashlib.sha256(b"changed").hexdigest(), SHA256):
        assert value in str(error.value)


@pytest.mark.parametrize("name", ["model.bin", "short.bin", "absent.bin"])
def test_a_wrong_or_missing_file_is_not_kept(address: str, cache: Path, name: str):
    sha256 = "0" * 64 if name == "model.bin" else SHA256
    with pytest.raises(PainseqError) as error:
        fetch(f"{address}/{name}", sha256)
    for value in (f"{address}/{name}", sha256, str(cache / name)):
        assert value in str(error.value)
    assert not list(cache.iterdir())


def test_offline_says_where_to_put_the_file(address: str, cache: Path):
    with pytest.raises(PainseqError) as error:
        fetch("http://127.0.0.1:9/model.bin", SHA256)
    for value in ("http://127.0.0.1:9/model.bin", SHA256, str(cache / "model.bin")):
        assert value in str(error.value)
    (cache / "model.bin").write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:9/model.bin", SHA256) == cache / "model.bin"


def test_only_web_addresses(tmp_path: Path):
    with pytest.raises(PainseqError, match=f"file://{tmp_path}"):
        fetch(f"file://{tmp_path}/model.bin", SHA256)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PAINSEQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "painseq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "painseq"


def test_hosts_that_nobody_allowed_are_not_called(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    asked = Server.asked
    monkeypatch.setenv(ALLOW_HOSTS, "example.org")
    for url in (f"{address}/model.bin", "https://github.com.example.net/w.bin", "https://notgithub.com/w.bin"):
        with pytest.raises(PainseqError, match=ALLOW_HOSTS):
            fetch(url, SHA256)
    assert Server.asked == asked and not cache.exists()
    monkeypatch.setenv(ALLOW_HOSTS, "127.0.0.1")
    fetch(f"{address}/model.bin", SHA256)
    with pytest.raises(PainseqError, match=rf"localhost.*{ALLOW_HOSTS}=localhost"):
        fetch(f"{address}/elsewhere.bin", SHA256)


def test_an_address_in_a_record_is_called_only_if_its_host_is_allowed(
    address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = Server.asked
    monkeypatch.setenv(ALLOW_HOSTS, "")
    monkeypatch.setattr(painseq.download, "HOSTS", ("127.0.0.1",))
    with pytest.raises(PainseqError, match=rf"{ALLOW_HOSTS}=127\.0\.0\.1"):
        fetch(f"{address}/model.bin", SHA256, from_record=True)
    assert Server.asked == asked
    path = fetch(f"{address}/model.bin", SHA256)
    assert fetch(f"{address}/model.bin", SHA256, from_record=True) == path
    path.unlink()
    monkeypatch.setenv(ALLOW_HOSTS, "127.0.0.1")
    assert fetch(f"{address}/model.bin", SHA256, from_record=True) == path


def test_what_is_fetched_is_told_before(address: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "painseq"):
        path = fetch(f"{address}/model.bin", SHA256)
        fetch(f"{address}/untold.bin", SHA256)
    first, second = caplog.messages
    assert f"{address}/model.bin" in first and str(path) in first and f"{len(CONTENT) / 1e6:.1f} MB" in first
    assert "unknown size" in second


@pytest.mark.parametrize("name", ["model.bin", "untold.bin"])
def test_a_file_that_is_too_large_is_not_downloaded(
    address: str, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(painseq.download, "MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(PainseqError, match=name):
        fetch(f"{address}/{name}", SHA256)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("url", ["https://[x/y.onnx", "https://github.com/a%00b", "ftp://github.com/a"])
def test_what_is_no_address_of_a_file_is_refused(url):
    with pytest.raises(PainseqError, match="address"):
        fetch(url, "0" * 64)
