"""What a service answers, and what it refuses."""

import io
import logging
import socket
import struct
import time
import zlib

import pytest
from starlette.testclient import TestClient

from painseq.errors import PainseqError
from painseq.faces import FaceCrops, Sidecar
from painseq.model.record import CalibrationRecord
from painseq.serve import app, serve
from painseq.serve.guard import PUBLIC, Rate
from painseq.serve.options import is_loopback
from painseq.serve.worker import QueueFull, Workers

NAMES = ("no_pain", "low_pain", "high_pain")


@pytest.fixture
def client(colours, options):
    """A client of a service of two models, which shows the token; `limits` and `models` can be given."""
    made = []

    def make(models=("one", "two"), shown=True, **limits):
        settings = options(**limits)
        headers = {"Authorization": f"Bearer {settings.token}"} if shown else {}
        chosen = {name: colours() for name in models} if isinstance(models, tuple) else models
        client = TestClient(app(chosen, settings), "http://localhost", raise_server_exceptions=False, headers=headers)
        made.append(client)
        return client.__enter__()

    yield make
    for each in made:
        each.__exit__(None, None, None)


def sent(client, data, name="clip.mp4", **form):
    return client.post("/predict", files={"file": (name, data)}, data=form)


def test_a_video_is_predicted_as_by_the_command(client, clip, colours, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip)
    expected = colours().predict(tmp_path / "clip.mp4").to_dict()
    answer = sent(client(), clip)
    assert answer.status_code == 200
    assert answer.json() == {name: [expected | {"video": "upload"}] for name in ("one", "two")}
    assert sent(client(), clip, model="two").json() == [expected | {"video": "upload"}]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_picture_is_predicted(client, picture, kind):
    (prediction,) = sent(client(("one",)), picture(kind=kind), "whatever.txt").json()
    assert prediction["label"] == "high_pain" and tuple(prediction["probabilities"]) == NAMES


def test_models_tell_whom_they_were_fitted_on_in_numbers_alone(client, colours):
    asked = client({"one": colours(generated=True)})
    (told,) = asked.get("/models").json()
    assert told["name"] == "one" and told["class_names"] == list(NAMES) and told["fitted_on"]["people"] == 2
    assert any("generated" in limit for limit in told["limits"]) and any("medical" in limit for limit in told["limits"])
    assert "S1" not in str(told) and told["calibration"] is None
    assert asked.get("/health").json()["models"] == 1
    assert "/predict" in asked.get("/openapi.json").json()["paths"]


def test_the_calibration_of_a_fit_is_told_but_not_for_another_mix_of_classes(client, colours):
    found = CalibrationRecord(ece=0.125, brier=0.5, overconfidence=-0.0625, subjects=8, clips=72)
    model = colours(calibration=found)
    (told,) = client({"one": model}).get("/models").json()
    assert told["calibration"] == found.to_dict() == {
        "ece": 0.125, "brier": 0.5, "overconfidence": -0.0625, "subjects": 8, "clips": 72
    }  # fmt: skip
    assert any(str(found) in limit for limit in told["limits"])
    model.prior = {"no_pain": 0.5, "low_pain": 0.25, "high_pain": 0.25}
    (told,) = client({"one": model}).get("/models").json()
    assert told["calibration"] is None


@pytest.mark.parametrize("path", ["/health", "/models", "/openapi.json", "/predict", "/docs", "/redoc", "/nothing"])
@pytest.mark.parametrize("shown", ["", "Bearer ", "Bearer wrong", "Bearer täken", "Basic token-of-the-tests-1234"])
def test_nothing_but_the_page_is_had_without_the_token(client, path, shown):
    headers = {"Authorization": shown.encode()} if shown else {}
    asked = client(("one",), shown=False)
    for answer in (asked.get(path, headers=headers), asked.post(path, headers=headers)):
        assert answer.status_code == 401 and set(answer.json()) == {"error"}
    assert asked.get(f"{path}?token=token-of-the-tests-1234").status_code == 401


def test_the_page_needs_no_token_and_loads_nothing_from_elsewhere(client):
    asked = client(("one",), shown=False)
    for path in PUBLIC:
        answer = asked.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store" and "access-control-allow-origin" not in answer.headers
        assert "http://" not in answer.text.replace("http://www.w3.org/", "") and "https://" not in answer.text
    assert "POST /predict" in asked.get("/api").text and "script" not in asked.get("/api").text
    page = asked.get("/").text
    assert "<style" not in page and "style=" not in page and " on" + "click=" not in page
    assert asked.get("/docs", headers={"Authorization": "Bearer token-of-the-tests-1234"}).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil", "", "a/b"]
)
def test_another_name_is_refused_since_a_foreign_page_may_have_given_it(client, host):
    assert client(("one",)).get("/health", headers={"Host": host}).status_code == 421
    assert client(("one",), shown=False).get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:80", "LOCALHOST:80"])
def test_own_names_are_answered(client, host):
    assert client(("one",)).get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil", "https://localhost:1", "localhost"]
)
def test_a_foreign_page_can_do_nothing(client, clip, origin):
    asked = client(("one",))
    assert asked.post("/predict", files={"file": clip}, headers={"Origin": origin}).status_code == 403
    assert asked.post("/predict", files={"file": clip}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert asked.options("/predict", headers={"Origin": origin}).status_code == 405
    assert asked.post("/predict", files={"file": clip}, headers={"Origin": "http://localhost"}).status_code == 200


def test_uploads_over_the_limit_are_refused_stated_or_not(client, clip):
    asked = client(("one",), max_upload_bytes=4000)
    assert sent(asked, bytes(5000)).status_code == 413

    def pieces():
        for _ in range(100):
            yield bytes(1000)

    answer = asked.post("/predict", content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413 and "larger" in answer.json()["error"]
    assert asked.post("/predict", content=b"", headers={"Content-Length": "-1"}).status_code == 413


def bomb(width, height):
    """A PNG of a few bytes that claims to have many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


ODD = {
    "empty": b"",
    "text": b"#!/bin/sh\nreboot",
    "a playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "a list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "a bomb": bomb(60_000, 60_000),
    "a smaller bomb": bomb(5000, 5000),
    "half a head": b"\x89PNG\r\n\x1a\n\x00",
    "no mp4": b"\0\0\0\x18ftypisom" + bytes(100),
    "no mkv": b"\x1aE\xdf\xa3" + bytes(100),
    "no avi": b"RIFF\0\0\0\0AVI " + bytes(100),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_refused_in_one_sentence(client, name):
    answer = sent(client(("one",)), ODD[name])
    assert answer.status_code == 422
    assert "/" not in answer.json()["error"].replace("/etc/passwd", "!") and set(answer.json()) == {"error"}


def test_truncated_files_and_those_over_the_limits_are_refused(client, clip, picture, tmp_path):
    asked = client(("one",))
    for data in (picture(size=(640, 480))[:-200], clip[: len(clip) // 2], b"\xff\xd8\xff" + b"\xff\xda" * 100):
        answer = sent(asked, data)
        assert answer.status_code == 422 and str(tmp_path.parent) not in answer.text and "painseq-" not in answer.text
    for limits in ({"max_video_s": 1.0}, {"max_pixels": 1000}):
        assert sent(client(("one",), **limits), clip).status_code == 422
    assert sent(client(("one",), max_pixels=1000), picture()).status_code == 422


def test_a_jpeg_of_very_many_passes_is_refused(client, picture):
    held = io.BytesIO(picture())
    assert sent(client(("one",)), held.getvalue() + b"\xff\xda" * 100).status_code == 422


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\\..\\b", "<script>alert(1)</script>", "x" * 5000, "\0"]
)
def test_names_of_files_do_not_matter_and_are_not_told(client, clip, name, caplog):
    caplog.set_level(logging.DEBUG)
    answer = sent(client(("one",)), clip, name)
    assert answer.status_code in (200, 400)
    assert "passwd" not in answer.text + caplog.text and "script" not in answer.text + caplog.text


def test_wrong_forms_are_refused(client, clip):
    asked = client(("one",))
    assert asked.post("/predict").status_code == 400
    assert asked.post("/predict", json={"file": "/etc/passwd"}).status_code == 400
    assert asked.post("/predict", data={"file": "/etc/passwd"}).status_code == 400
    assert asked.post("/predict", files=[("file", clip), ("file", clip)]).status_code == 400
    assert asked.post("/predict", files={"other": clip}).status_code == 400
    assert sent(asked, clip, model="<img src=x onerror=alert(1)>").status_code == 422
    assert asked.put("/predict").status_code == 405 and asked.get("/../../etc/passwd").status_code == 404
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert asked.post("/predict", content=b"--x\r\nbroken", headers=broken).status_code == 400


def test_an_address_that_asks_too_often_waits(client):
    asked = client(("one",), requests_per_s=1.0, burst=3)
    assert [asked.get("/health").status_code for _ in range(5)] == [200, 200, 200, 429, 429]


def test_rates_of_addresses_are_their_own_and_few_are_remembered():
    rate = Rate(1000, 1)
    assert rate.takes("a") and rate.takes("b") and not rate.takes("a")
    time.sleep(0.01)
    assert rate.takes("a")
    for i in range(6000):
        rate.takes(str(i))
    assert len(rate._left) <= 4096


def test_a_queue_is_bounded():
    workers = Workers(1, 1)
    try:
        slow = [workers.submit(lambda: time.sleep(0.2)) for _ in range(2)]
        with pytest.raises(QueueFull):
            workers.submit(lambda: None)
        for each in slow:
            each.result()
        workers.submit(lambda: None).result()
    finally:
        workers.stop()


def test_a_model_that_fails_hides_no_other_and_an_unexpected_failure_tells_nothing(client, colours, clip):
    needy = colours(normalise=("baseline",), baseline_clips=1)
    told = sent(client({"needy": needy, "one": colours()}), clip).json()
    assert "baseline" in told["needy"]["error"] and told["one"][0]["label"]
    assert sent(client({"needy": needy}), clip).status_code == 422
    broken = colours()
    broken.features = None
    answer = sent(client({"broken": broken}), clip)
    assert answer.status_code == 500 and set(answer.json()) == {"error"} and "None" not in answer.text


def test_models_that_need_files_beside_the_video_are_refused(colours, options):
    model = colours()
    model.face = FaceCrops(Sidecar())
    with pytest.raises(PainseqError, match="locator"):
        app({"one": model}, options())
    with pytest.raises(PainseqError):
        app({}, options())


def test_a_token_is_needed_where_others_can_reach(colours, options):
    with pytest.raises(PainseqError, match="token"):
        serve({"one": colours()}, options(token=None), host="0.0.0.0")
    for token in ("", "sixteen or more, with spaces", "sixteen-or-more-\u00e9", "sixteen-or-more-\n"):
        with pytest.raises(PainseqError, match="token"):
            options(token=token)
    assert (
        is_loopback("127.0.0.2") and is_loopback("::1") and not is_loopback("0.0.0.0") and not is_loopback("a.example")
    )
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PainseqError, match="listen"):
        serve({"one": colours()}, options(), port=taken.getsockname()[1])
