"""A stream: its answers, what wins, and what ends it."""

import itertools
import json
import struct
import threading
import time
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from painseq.live import LiveSettings
from painseq.serve import app

TOKEN = "token-of-the-tests-1234"
AT_ONCE = LiveSettings(warm_up_s=0.0, gap_s=0.6)


def framed(captured_ms, jpeg):
    return struct.pack("<d", captured_ms) + jpeg


@pytest.fixture
def client(colours, options):
    made = []

    def make(models=("one", "two"), **limits):
        chosen = {name: colours(fps=None) for name in models} if isinstance(models, tuple) else models
        client = TestClient(app(chosen, options(**{"live": AT_ONCE, **limits})), "http://localhost")
        made.append(client)
        return client.__enter__()

    yield make
    for each in made:
        each.__exit__(None, None, None)


def begun(socket, **hello):
    socket.send_json({"token": TOKEN, **hello})
    return socket.receive_json()


def test_each_picture_is_answered_with_all_models(client, picture):
    with client().websocket_connect("ws://localhost/stream") as socket:
        assert begun(socket) == {"type": "ready", "models": ["one", "two"], "max_message_bytes": 2**20}
        for i, colour in enumerate([(220, 0, 0)] * 2 + [(0, 0, 255)] * 4):
            socket.send_bytes(framed(1000.0 + 500 * i, picture(colour)))
            told = socket.receive_json()
            assert told["type"] == "reading" and told["captured_ms"] == 1000.0 + 500 * i and told["state"] == "ok"
            assert told["box"] == [0, -8, 48, 40] and told["lag_ms"] >= 0 and told["movements"] is None
        assert [told["models"][name]["label"] for name in ("one", "two")] == ["high_pain"] * 2
        assert sum(told["models"]["one"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_only_chosen_models_run(client, picture):
    with client().websocket_connect("ws://localhost/stream") as socket:
        assert begun(socket, models=["two"])["models"] == ["two"]
        socket.send_bytes(framed(1.0, picture()))
        assert list(socket.receive_json()["models"]) == ["two"]


def test_a_lost_signal_is_told_once(client, picture):
    with client().websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        socket.send_bytes(framed(1.0, picture()))
        assert socket.receive_json()["state"] == "ok"
        lost = socket.receive_json()
        assert lost["state"] == "signal_lost" and lost["models"]["one"]["label"] is None and lost["box"] is None
        time.sleep(1.2)
        socket.send_bytes(framed(3000.0, picture()))
        assert socket.receive_json()["state"] == "ok"


def test_a_notification_comes_and_is_acknowledged(client, picture):
    notify = {"on": 0.6, "off": 0.4, "on_s": 0.2, "off_s": 0.1, "tau_s": 0}
    with client().websocket_connect("ws://localhost/stream") as socket:
        begun(socket, notify=notify)
        events = []
        for i in range(5):
            socket.send_bytes(framed(100.0 * i, picture((0, 0, 255))))
            told = [socket.receive_json()]
            if i == 2:
                told.append(socket.receive_json())
            events += [each for each in told if each["type"] == "notification"]
        assert [event["event"] for event in events] == ["on"] and events[0]["number"] > 0.6
        socket.send_json({"type": "acknowledge"})
        assert socket.receive_json()["event"] == "acknowledged"


def test_damaged_pictures_and_messages_of_people_are_no_signal(client, picture):
    with client().websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        socket.send_bytes(framed(100.0, picture()))
        assert socket.receive_json()["state"] == "ok"
        told = []
        for i in range(10):
            time.sleep(0.15)
            socket.send_json({"type": "confirm_person"})
            socket.send_bytes(framed(200.0 + i, b"no jpeg"))
            told.append(socket.receive_json())
        assert [each.get("state") for each in told].count("signal_lost") == 1
        assert {each["type"] for each in told} == {"reading", "error"}


def test_a_lost_signal_does_not_count_as_time_with_pain(client, picture):
    with client(("one",)).websocket_connect("ws://localhost/stream") as socket:
        begun(socket, notify={"on": 0.6, "off": 0.4, "on_s": 1, "tau_s": 0})
        socket.send_bytes(framed(100.0, picture((0, 0, 255))))
        assert [socket.receive_json()["state"] for _ in range(2)] == ["ok", "signal_lost"]
        told = []
        for i in range(6):
            socket.send_bytes(framed(4000.0 + 250 * i, picture((0, 0, 255))))
            told.append(socket.receive_json())
        told.append(socket.receive_json())
    assert [each["captured_ms"] for each in told if each["type"] == "notification"] == [5000.0]


def test_a_model_that_fails_is_logged_and_told_as_such(client, colours, picture, caplog):
    model = colours(fps=None)
    model.features = lambda crops: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with client({"one": model}).websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        socket.send_bytes(framed(100.0, picture()))
        told = socket.receive_json()
        assert told["type"] == "error" and "out of memory" not in told["error"]
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json()
    assert ended.value.code == 1011 and "out of memory" in caplog.text


WRONG = [
    framed(200.0, b"no jpeg"),
    framed(200.0, b""),
    b"short",
    framed(float("nan"), b"\xff\xd8\xff"),
    framed(float("inf"), b"\xff\xd8\xff"),
    framed(200.0, b"\x89PNG\r\n\x1a\n" + bytes(50)),
]


@pytest.mark.parametrize("wrong", range(len(WRONG)))
def test_a_wrong_picture_is_told_and_the_next_one_is_read(client, picture, wrong):
    with client(("one",)).websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        socket.send_bytes(framed(100.0, picture()))
        assert socket.receive_json()["type"] == "reading"
        socket.send_bytes(WRONG[wrong])
        assert socket.receive_json()["type"] == "error"
        socket.send_bytes(framed(300.0, picture()))
        assert socket.receive_json()["type"] == "reading"


def test_truncated_large_and_old_pictures_are_told(client, picture):
    with client(("one",), max_stream_pixels=48 * 32).websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        full = picture(size=(48, 32))
        socket.send_bytes(framed(100.0, full))
        assert socket.receive_json()["type"] == "reading"
        for message in (framed(200.0, full[:-300]), framed(200.0, picture(size=(49, 32))), framed(100.0, full)):
            socket.send_bytes(message)
            assert set(socket.receive_json()) == {"type", "error"}


@pytest.mark.parametrize(
    "hello",
    ["", "[]", "{}", '{"token": "wrong"}', '{"token": 1}', '{"token": "\\ud800"}', "[" * 100_000, '{"token": null}',
     json.dumps({"token": TOKEN, "models": ["<b>"]}), json.dumps({"token": TOKEN, "models": "one"}),
     json.dumps({"token": TOKEN, "notify": {"on": "1"}}),
     json.dumps({"token": TOKEN, "notify": {"on": 0.2, "off": 0.9}}),
     json.dumps({"token": TOKEN, "notify": [1]}), json.dumps({"token": TOKEN, "notify": {"__class__": 1}})],
)  # fmt: skip
def test_a_wrong_first_message_ends_the_stream(client, hello):
    with client(("one",)).websocket_connect("ws://localhost/stream") as socket:
        socket.send_text(hello)
        assert socket.receive_json()["type"] == "error"
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json()
        assert ended.value.code == 1008


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_a_foreign_page_gets_no_stream(client, headers):
    with (
        pytest.raises(WebSocketDisconnect),
        client(("one",)).websocket_connect("ws://localhost/stream", headers=headers),
    ):
        pass
    with client(("one",)).websocket_connect("ws://localhost/stream", headers={"Origin": "http://localhost"}) as socket:
        assert begun(socket)["type"] == "ready"


def test_limits_of_a_stream(client, picture):
    asked = client(("one",), max_sessions=1, messages_per_s=5.0, idle_s=0.4, head_s=0.3, max_message_bytes=2000)
    with asked.websocket_connect("ws://localhost/stream") as silent:
        assert "first message" in silent.receive_json()["error"]
    with asked.websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        with asked.websocket_connect("ws://localhost/stream") as other:
            assert "busy" in begun(other)["error"]
        assert "Nothing came" in socket.receive_json()["error"]
    with asked.websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        socket.send_bytes(bytes(3000))
        assert "bytes" in socket.receive_json()["error"]
    with asked.websocket_connect("ws://localhost/stream") as socket:
        begun(socket)
        for i in range(11):
            socket.send_bytes(framed(10.0 * i + 10, picture()))
        told = [socket.receive_json() for _ in range(2)]
        while told[-1]["type"] == "reading":
            told.append(socket.receive_json())
        assert "messages a second" in told[-1]["error"]


def test_the_newest_picture_wins_and_streams_take_turns(colours, options, run_server, picture):
    model = colours(fps=None)
    model.delay_s = 0.1
    # Each picture differs from the last, so that none is skipped.
    pictures = [picture((i * 40 % 250, 0, 0)) for i in range(60)]
    settings = options(live=AT_ONCE, threads=1, messages_per_s=500.0)
    answered = {}

    def talk(port, name):
        with connect(f"ws://127.0.0.1:{port}/stream", max_size=2**20) as socket:
            socket.send(json.dumps({"token": TOKEN}))
            socket.recv()
            for i, each in enumerate(pictures):
                socket.send(framed(50.0 * i, each))
                time.sleep(0.02)
            found = []
            while not found or found[-1]["captured_ms"] < 50.0 * (len(pictures) - 1):
                found.append(json.loads(socket.recv(timeout=20)))
            answered[name] = found

    with run_server(app({"one": model}, settings), settings) as port:
        threads = [threading.Thread(target=talk, args=(port, name)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(answered) == ["a", "b"]
    counts = [len(found) for found in answered.values()]
    assert max(counts) < 50 and min(counts) >= 0.6 * max(counts)
    for found in answered.values():
        assert found[-1]["dropped"] > 10
        assert all(later["captured_ms"] > earlier["captured_ms"] for earlier, later in itertools.pairwise(found))


def test_a_message_over_the_limit_and_a_stop_end_a_stream(colours, options, run_server, picture):
    settings = options(live=AT_ONCE, max_message_bytes=5000)
    application = app({"one": colours(fps=None)}, settings)
    with run_server(application, settings) as port, connect(f"ws://127.0.0.1:{port}/stream") as socket:
        socket.send(json.dumps({"token": TOKEN}))
        socket.recv()
        socket.send(bytes(50_000))
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=10)
    with run_server(application, settings) as port:
        held = ExitStack()
        socket = held.enter_context(connect(f"ws://127.0.0.1:{port}/stream"))
        socket.send(json.dumps({"token": TOKEN}))
        socket.recv()
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 10
    with held, pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)


def test_the_client_of_the_documentation_streams_a_video(colours, options, run_server, clip, tmp_path):
    import re
    from pathlib import Path

    page = Path(__file__).parents[2] / "docs" / "serve.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = {"__name__": "client"}
    exec(compile(code, str(page), "exec"), names)
    (tmp_path / "clip.mp4").write_bytes(clip)
    settings = options(live=AT_ONCE)
    with run_server(app({"one": colours(fps=None)}, settings), settings) as port:
        answers = names["stream"](f"http://127.0.0.1:{port}/", TOKEN, str(tmp_path / "clip.mp4"))
        readings = [told for told in answers if told["type"] == "reading"]
        assert len(readings) > 10 and readings[0]["models"]["one"]["label"] == "no_pain"
        with pytest.raises(SystemExit, match="token"):
            names["stream"](f"http://127.0.0.1:{port}/", "wrong", str(tmp_path / "clip.mp4"))
