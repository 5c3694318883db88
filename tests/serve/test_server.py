"""A real server: slow clients, clients that go away, a stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from painseq.serve import app

TOKEN = "token-of-the-tests-1234"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def ended_after_s(connection: socket.socket) -> float:
    """Seconds until the server ends a connection."""
    connection.settimeout(20)
    begun = time.monotonic()
    while connection.recv(4096):
        pass
    return time.monotonic() - begun


def test_clients_that_send_slowly_are_left(colours, options, run_server, clip):
    settings = options(head_s=0.5, body_s=1.0)
    with run_server(app({"one": colours()}, settings), settings) as port:
        heads = [b"", b"GET / HTTP/1.1\r\nHost: loc", b"\x16\x03\x01"]
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in heads]
        for connection, head in zip(connections, heads, strict=True):
            connection.sendall(head)
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x".encode()
        )
        assert max(ended_after_s(each) for each in (*connections, slow)) < 10
        # Others are served meanwhile, and one that keeps its connection is not ended between two requests.
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client:
            for _ in range(3):
                assert client.post("/predict", files={"file": clip}).status_code == 200
                time.sleep(0.3)


def test_a_head_of_many_bytes_is_refused(colours, options, run_server):
    settings = options()
    with run_server(app({"one": colours()}, settings), settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000)
            connection.settimeout(10)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
            connection.settimeout(10)
            assert connection.recv(100).split()[1] in (b"400", b"421")


def test_more_uploads_than_may_wait_are_refused_and_one_whose_sender_has_gone_is_forgotten(
    colours, options, run_server, clip, nothing_is_left
):
    model = colours()
    model.delay_s = 0.3
    settings = options(waiting=1)
    with run_server(app({"one": model}, settings), settings) as port:
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + clip + b"\r\n--x--\r\n"
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        for each in waiting:
            each.sendall(head + body)
            time.sleep(0.2)
        refused = httpx.post(f"http://127.0.0.1:{port}/predict", headers=HEADERS, files={"file": clip})
        assert refused.status_code == 429 and "busy" in refused.json()["error"]
        waiting[1].close()  # It waits; the other is being predicted.
        waiting[0].settimeout(30)
        assert waiting[0].recv(12).endswith(b"200")
        until = time.monotonic() + 20
        while (
            answer := httpx.post(f"http://127.0.0.1:{port}/predict", headers=HEADERS, files={"file": clip})
        ).is_error:
            assert time.monotonic() < until
            time.sleep(0.2)
        assert answer.status_code == 200
        waiting[0].close()


def test_the_command_refuses_what_it_cannot_serve(capsys):
    from painseq.cli import main

    assert main(["serve"]) == 1 and "--checkpoint" in capsys.readouterr().err
    assert main(["serve", "--checkpoint", "missing.ckpt"]) == 1


def test_a_missing_package_is_named_with_its_extra(capsys, monkeypatch):
    from painseq.cli import main

    monkeypatch.setattr("painseq.cli.serve.NEEDED", ("fastapi", "no_such_package"))
    assert main(["serve", "--checkpoint", "missing.ckpt"]) == 1
    told = capsys.readouterr().err
    assert "no_such_package" in told and "painseq[serve]" in told and "fastapi" not in told


@pytest.mark.slow
def test_a_fitted_model_is_served_until_a_signal_comes(lstm, video, tmp_path):
    command = [sys.executable, "-m", "painseq", "serve", "--checkpoint", str(lstm), "--port", "0", "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    server = subprocess.Popen(
        [*command, "--locator", "full_frame"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        address = server.stdout.readline().strip()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)#token=([\w-]{40,})", address)
        assert found, address + server.stderr.read()
        url, token = found.groups()
        assert httpx.post(f"{url}predict").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        (told,) = httpx.get(f"{url}models", headers=headers).json()
        assert told["name"] == "lstm" and told["fitted_on"]["people"] > 0
        files = {"file": ("anna.mp4", Path(video).read_bytes())}
        (prediction,) = httpx.post(f"{url}predict", headers=headers, files=files, timeout=60).json()
        assert prediction["label"] in told["class_names"] and prediction["video"] == "upload"
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=30)
        assert server.returncode in (0, -signal.SIGTERM)
        assert token not in out + err and "anna" not in out + err
    finally:
        server.kill()
    assert not list((tmp_path / "temporary").glob("painseq-*"))
