"""A real server: slow clients, clients that go away, a stop."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from painseq.serve import app
from painseq.serve.server import address_of, server_of

TOKEN = "token-of-the-tests-1234"
ROOT = Path(__file__).parents[2]
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


def test_a_stop_keeps_no_upload_and_waits_for_no_long_prediction(colours, options, clip, nothing_is_left, monkeypatch):
    monkeypatch.setattr("painseq.serve.server.STOP_S", 1)
    model = colours()
    begun = threading.Event()
    model.features = lambda crops: (begun.set(), time.sleep(3), np.zeros((len(crops), 3), np.float32))[-1]
    settings = options()
    server = server_of(app({f"model {i}": model for i in range(10)}, settings), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    left = []

    def run():
        # As `serve`, but what has not ended is left as it is: a signal ends the process here.
        loop = asyncio.new_event_loop()
        loop.run_until_complete(server.serve([listening]))
        left.extend(nothing_is_left.glob("painseq-*"))
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with suppress(httpx.HTTPError), ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/predict"
        sent = pool.submit(httpx.post, url, headers=HEADERS, files={"file": clip}, timeout=60)
        assert begun.wait(30) and any(nothing_is_left.glob("painseq-*/upload*"))
        stopped_s = time.monotonic()
        server.should_exit = True
        thread.join(30)
        assert not left
        sent.result()
    until = stopped_s + 20
    while any(each.name.startswith("painseq-serve") and each.is_alive() for each in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)
    listening.close()


def test_the_command_refuses_what_it_cannot_serve(capsys):
    from painseq.cli import main

    assert main(["serve"]) == 1 and "--checkpoint" in capsys.readouterr().err
    assert main(["serve", "--checkpoint", "missing.ckpt"]) == 1


@pytest.mark.parametrize(
    ("host", "called"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.2", "127.0.0.2:80"),
        ("0.0.0.0", "127.0.0.1:80"),
        ("::", "[::1]:80"),
        ("Pain.Example", "pain.example:80"),
    ],
)
def test_the_printed_address_is_answered_and_carries_every_token(host, called, colours, monkeypatch):
    from painseq.cli import main

    token = "a+b/c=d&e%20f#gh"
    given = []
    monkeypatch.setenv("PAINSEQ_TOKEN", token)
    monkeypatch.setattr("painseq.serve.serve", lambda *values: given.append(values))
    monkeypatch.setattr("painseq.cli.serve.chosen_predictors", lambda args: {"one": colours()})
    assert main(["serve", "--checkpoint", "any", "--host", host]) == 0
    _, settings, given_host, _, _ = given[0]
    page = urlsplit(address_of(given_host, 80, settings.token))
    assert page.netloc.lower() == called and parse_qs(page.fragment) == {"token": [token]}
    with TestClient(app({"one": colours()}, settings), f"http://{page.netloc}") as client:
        assert client.get("/health", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_missing_package_is_named_with_its_extra(capsys, monkeypatch):
    from painseq.cli import main

    monkeypatch.setattr("painseq.cli.serve.NEEDED", ("fastapi", "no_such_package"))
    assert main(["serve", "--checkpoint", "missing.ckpt"]) == 1
    told = capsys.readouterr().err
    assert "no_such_package" in told and "painseq[serve]" in told and "fastapi" not in told


WITHOUT_TORCH = """
import sys
for name in ("torch", "pytorch_lightning", "sklearn", "scipy", "matplotlib", "pandas", "jinja2"):
    sys.modules[name] = None
import io, json, struct
from PIL import Image
from starlette.testclient import TestClient
import painseq.runtime
from painseq.live import LiveSettings
from painseq.serve import ServeOptions, app
import painseq.cli.serve

held = io.BytesIO()
Image.new("RGB", (48, 32), (0, 0, 200)).save(held, "JPEG")
options = ServeOptions("token-of-the-tests-1234", live=LiveSettings(warm_up_s=0.0))
model = painseq.runtime.load(sys.argv[1], threads=1)
headers = {"Authorization": "Bearer token-of-the-tests-1234"}
with TestClient(app({"exported": model}, options), "http://localhost", headers=headers) as client:
    (prediction,) = client.post("/predict", files={"file": held.getvalue()}).json()
    with client.websocket_connect("ws://localhost/stream") as socket:
        socket.send_json({"token": "token-of-the-tests-1234"})
        socket.receive_json()
        for i in range(3):
            socket.send_bytes(struct.pack("<d", 500.0 * i) + held.getvalue())
            told = socket.receive_json()
print(prediction["label"], told["models"]["exported"]["label"])
"""


@pytest.mark.slow
def test_an_exported_model_is_served_without_torch(colours, tmp_path, make_record):
    folder = write_exported(tmp_path / "exported", make_record)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(folder)], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.stdout.split() == ["high_pain", "high_pain"], done.stderr


def write_exported(folder, make_record):
    """An exported folder: the mean of each colour, and softmax of its mean over time."""
    onnx = pytest.importorskip("onnx")
    from painseq.faces import FaceCrops, FullFrame
    from painseq.runtime.folder import (
        EXTRACTOR,
        HEAD,
        ExportedRecord,
        ExtractorRecord,
        HeadRecord,
        SourceRecord,
        measured_files,
    )

    def save(name, text):
        graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
        onnx.checker.check_model(graph)
        onnx.save(graph, folder / name)

    folder.mkdir()
    save(
        EXTRACTOR,
        """extractor (uint8[n, 3, 16, 16] crops) => (float[n, 3] features)
        <int64[2] axes = {2, 3}, float most = {255}>
        { pixels = Cast<to = 1>(crops) means = ReduceMean<keepdims = 0>(pixels, axes) features = Div(means, most) }""",
    )
    save(
        HEAD,
        """head (float[b, t, 3] x, bool[b, t] mask) => (int64[b] label, float[b, 3] probabilities)
        <int64[1] one = {1}>
        { mean = ReduceMean<keepdims = 0>(x, one) probabilities = Softmax(mean)
          label = ArgMax<axis = 1, keepdims = 0>(probabilities) }""",
    )
    record = make_record(in_shape=(3,))
    exported = ExportedRecord(
        record,
        FaceCrops(FullFrame(), size_px=16, margin=0).spec(),
        measured_files(folder, (EXTRACTOR, HEAD)),
        ExtractorRecord("fp32", "onnxruntime"),
        HeadRecord("video", None, record.in_shape),
        None,
        SourceRecord("best.ckpt", "0" * 64),
        {"painseq": "0.1.0"},
    )
    exported.write(folder)
    return folder


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
