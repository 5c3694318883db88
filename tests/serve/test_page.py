"""The page in a real browser, with a camera that plays a file."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from painseq.faces import Face, FaceCrops, FullFrame
from painseq.live import LiveSettings
from painseq.serve import app

pytestmark = pytest.mark.slow

TOKEN = "token-of-the-tests-1234"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BAD_NAME = "<img src=x onerror=window.bad=1>"


class Middle(FullFrame):
    """Finds a face in the middle third of each picture."""

    needs_pixels = True

    def locate(self, images, times_s, video):
        height, width = images.shape[1:3]
        box = np.array([width / 3, height / 4, 2 * width / 3, 3 * height / 4], np.float32)
        return [[Face(box, 0.9)] for _ in images]


@pytest.fixture(scope="module")
def camera(tmp_path_factory, picture) -> Path:
    """What the camera shows: 2 s of blue pictures, over and over; one grey level apart, so that none is a copy."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    path.write_bytes(b"".join(picture((30, 30, 200 + i % 2), (640, 480)) for i in range(20)))
    return path


@pytest.fixture(scope="module")
def chromium(camera):
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (requirements/system.txt)")
    flags = [
        *("--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-video-capture={camera}",
    ]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def make_application(colours, options):
    """Makes an application of two models, one of which has a name that a careless page would run."""
    models = {name: colours(fps=None) for name in ("lstm", BAD_NAME)}
    for model in models.values():
        model.face = FaceCrops(Middle(), size_px=16, margin=0)
    settings = options(live=LiveSettings(warm_up_s=0.2, window_s=3))
    return lambda: (app(models, settings), settings)


@pytest.fixture
def opened(chromium, make_application, run_server):
    """Opens the page of a running service, and collects what the console says."""
    with ExitStack() as held:
        port = held.enter_context(run_server(*make_application()))

        def open_page(token=TOKEN, **settings):
            context = held.enter_context(chromium.new_context(permissions=["camera"], **settings))
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.said = []
            page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.goto(f"http://127.0.0.1:{port}/#token={token}")
            return page

        yield open_page


def waits_for(page, selector, text):
    page.wait_for_function("([s, t]) => document.querySelector(s).textContent.includes(t)", arg=[selector, text])


def started(page):
    page.locator("#model-0").wait_for()
    page.get_by_role("button", name="Start camera").click()
    waits_for(page, "#state", "face seen")


def test_from_the_camera_to_an_answer_and_its_log(opened, tmp_path):
    page = opened()
    started(page)
    waits_for(page, "#verdict", "high_pain")
    assert float(page.locator("#pain").text_content()) > 0.5 and "ms" in page.locator("#lag").text_content()
    assert [float(page.locator("#box").get_attribute(side)) for side in ("width", "height")] == pytest.approx(
        [240, 240], abs=30
    )
    assert page.locator("#side tr").count() == 2 and page.locator("#side th").nth(1).text_content() == BAD_NAME
    page.wait_for_function("() => document.querySelectorAll('#course polyline').length === 2")
    page.wait_for_function("() => Number(document.querySelector('#log-count').textContent) > 20")
    page.get_by_role("button", name="Stop").click()
    assert page.locator("#state").text_content() == "stopped" and page.locator("#verdict").text_content() == "–"
    assert page.evaluate("document.querySelector('#video').srcObject") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "log.csv")
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0].startswith('"time","source","model"') and len(lines) > 20 and '"high_pain"' in lines[-1]
    assert page.evaluate("[location.hash, window.bad ?? 0]") == ["", 0] and page.said == []


def test_a_file_is_predicted(opened, clip, picture):
    page = opened()
    page.locator("#model-0").wait_for()
    page.locator("#file").set_input_files({"name": "<b>.mp4", "mimeType": "video/mp4", "buffer": clip})
    waits_for(page, "#state", "face in 100 %")
    assert page.locator("#verdict").text_content() in ("no_pain", "high_pain")
    assert page.locator("#course polyline").count() == 2
    page.locator("#model-1").uncheck()
    page.locator("#file").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture()})
    waits_for(page, "#verdict", "high_pain")
    assert page.locator("#side tr").count() == 1
    page.locator("#file").set_input_files({"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    waits_for(page, "#problem", "neither a video")
    # What was said of the picture before does not stand beside the new one.
    assert [page.locator(of).text_content() for of in ("#verdict", "#pain", "#side")] == ["–", "–", ""]
    assert page.locator("#course polyline").count() == 0
    assert [line for line in page.said if "422" not in line] == []


def test_the_curve_of_a_file_is_broken_where_no_face_was(opened, clip, monkeypatch):
    seen = Middle.locate

    def locate(self, images, times_s, video):
        found = seen(self, images, times_s, video)
        return [faces if not 0.3 < time_s < 1.5 else [] for faces, time_s in zip(found, times_s, strict=True)]

    monkeypatch.setattr(Middle, "locate", locate)
    page = opened()
    page.locator("#model-0").wait_for()
    page.locator("#file").set_input_files({"name": "a.mp4", "mimeType": "video/mp4", "buffer": clip})
    waits_for(page, "#state", "of the frames")
    assert page.locator("#course polyline").count() == 4  # Two of each model.


def test_a_notification_comes_and_is_acknowledged(opened):
    page = opened()
    page.locator("#notify").check()
    for name, value in (("on", "0.6"), ("off", "0.4"), ("s", "0.5")):
        page.locator(f"#notify-{name}").fill(value)
    started(page)
    page.get_by_role("alert").get_by_role("button", name="Acknowledge").click()
    waits_for(page, "#notifications", "acknowledged")
    assert page.locator("#notifications li").count() == 2 and page.locator("#alerts p").count() == 0
    assert page.said == []


def test_the_page_goes_on_after_the_service_was_started_again(chromium, make_application, run_server):
    context = chromium.new_context(permissions=["camera"])
    with run_server(*make_application()) as port:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#token={TOKEN}")
        started(page)
    waits_for(page, "#state", "signal lost")
    assert page.locator("#verdict").text_content() == "–"
    with run_server(*make_application(), port):
        waits_for(page, "#state", "face seen")
        context.close()


def test_no_prediction_is_shown_while_the_service_does_not_answer(opened):
    page = opened()
    started(page)
    # The connection stays, and nothing comes any more.
    page.evaluate("WebSocket.prototype.send = () => {}")
    waits_for(page, "#state", "does not answer")
    assert page.locator("#verdict").text_content() == "–" and page.locator("#pain").text_content() == "–"
    assert page.said == []


def test_no_picture_is_sent_while_the_system_holds_the_camera_back(opened):
    page = opened()
    started(page)
    page.evaluate(
        "Object.defineProperty(document.querySelector('#video').srcObject.getVideoTracks()[0], 'muted', {value: true})"
    )
    waits_for(page, "#state", "signal lost")
    assert page.locator("#verdict").text_content() == "–"
    assert page.said == []


def test_a_wrong_token_is_asked_for(opened):
    page = opened("wrong")
    page.locator("#token").fill(TOKEN)
    page.get_by_role("button", name="Use this token").click()
    page.locator("#model-0").wait_for()
    assert page.locator("#token-form").is_hidden()


CONTRAST = """() => {
  const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.disabled || e.closest(".hidden")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.outerHTML.slice(0, 80));
  }
  return low;
}"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("light", 1280), ("dark", 1280)])
def test_the_page_can_be_used_by_everybody(opened, scheme, width):
    page = opened(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator("#model-0").wait_for()
    reached = set()
    page.locator("h1").click()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"model-0", "notify-on", "start", "file"} <= reached
    for runs in (False, True):
        if runs:
            started(page)
            waits_for(page, "#verdict", "high_pain")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        for control in page.locator("button, input").all():
            if control.is_visible():
                assert control.evaluate("e => e.textContent.trim() || e.labels?.[0]?.textContent.trim()")
    assert page.locator("#spoken").get_attribute("role") == "status"
    assert "no medical device" in page.locator("header").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core: axe-playwright-python")
    page = opened(color_scheme=scheme)
    started(page)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:100] for node in each["nodes"]]) for each in found] == []


def test_movements_are_bars_under_their_names(opened, monkeypatch):
    from painseq.serve.stream import Stream

    told = Stream._told
    movements = {f"movement{i}": i / 20 for i in range(20)}
    monkeypatch.setattr(Stream, "_told", lambda self, captured_ms: told(self, captured_ms) | {"movements": movements})
    page = opened()
    started(page)
    assert page.locator("#movements li").count() == 12
    first = page.locator("#movements li").first
    assert first.text_content() == "movement190.95"
    assert first.locator(".bar > span").evaluate("e => e.style.width") == "95%"
    assert page.locator("#no-movements").is_hidden()
