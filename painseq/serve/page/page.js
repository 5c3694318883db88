// The page of `painseq serve`. All texts that come from the service are set as text, never as HTML.

const SENT_PER_S = 10, IN_FLIGHT = 2, LARGEST_SIDE_PX = 640, COURSE_S = 60, LOG_ROWS = 100_000, STALE_MS = 5000;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000];
const STATES = {
  ok: "face seen", warming_up: "warming up", no_face: "no face", other_face: "another face than before?",
  signal_lost: "signal lost",
};
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
history.replaceState(null, "", location.pathname); // The token is kept in memory alone.
let models = [];
let log = [];
let course = new Map(); // name of a model -> [[time in s, number or null], ...]
let camera = null; // While the camera runs: {stream, socket, ready, pending, waits, timer, failures, canvas}
let shownUrl = "";
let spoken = {text: "", at: 0};

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function inSvg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const modelOf = (name) => models.find((model) => model.name === name);
const chosen = () => models.map((model) => model.name).filter((_, i) => $(`model-${i}`).checked);
const shown = (number) => (number === null ? "–" : number.toFixed(2));
const lineClass = (i) => `line-${(i % 4) + 1}`;

// The number that the page shows of a model: the probability of all classes but the first, or the value.
function painOf(model, said) {
  if (model.scale !== null) return said.value ?? null;
  const probabilities = said.probabilities ?? {};
  const rest = model.class_names.slice(1).map((name) => probabilities[name]);
  return rest.length && rest.every(Number.isFinite) ? Math.min(1, rest.reduce((a, b) => a + b)) : null;
}

function problem(text) {
  $("problem").textContent = text;
}

function needToken() {
  $("token-form").hidden = false;
  $("token").focus();
}

async function asked(path, settings = {}) {
  const answer = await fetch(path, {...settings, headers: {Authorization: `Bearer ${token}`}});
  if (answer.status === 401) needToken();
  let told = {};
  try {
    told = await answer.json();
  } catch {
    throw new Error(`The service answered ${answer.status}.`);
  }
  if (!answer.ok) throw new Error(told.error ?? `The service answered ${answer.status}.`);
  return told;
}

async function loadModels() {
  if (!token && !["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) return needToken();
  try {
    models = await asked("models");
  } catch (error) {
    problem(error.message);
    return;
  }
  problem("");
  $("token-form").hidden = true;
  const legend = $("models").querySelector("legend");
  $("models").replaceChildren(legend);
  models.forEach((model, i) => {
    const label = element("label", "", {class: "inline"});
    const box = element("input", "", {type: "checkbox", id: `model-${i}`});
    box.checked = true;
    label.append(box, element("span", model.name));
    $("models").append(label);
  });
  $("about").replaceChildren(...models.flatMap(about));
}

function about(model) {
  const fitted = model.fitted_on, list = element("ul"), drawn = fitted.generated_faces ? ", generated faces" : "";
  const facts = [
    model.scale === null ? `Classes: ${model.class_names.join(", ")}.` : `Numbers on the scale ${model.scale}.`,
    `Fitted on ${fitted.people} people (${fitted.data_set}${drawn}); its extractor on ${fitted.people_of_the_extractor}.`,
    ...(model.threshold === null ? [] : [`Tuned threshold: ${model.threshold.toFixed(3)}.`]),
    ...model.limits.filter((limit) => !limit.includes("medical device")), // The page says so at its top.
  ];
  list.append(...facts.map((fact) => element("li", fact)));
  return [element("h3", model.name), list];
}

// ---- what is shown of a reading or a prediction

function showVerdict(name, said, state) {
  const model = modelOf(name), number = painOf(model, said);
  $("verdict").textContent = model.scale === null ? said.label ?? "–" : number === null ? "–" : `${shown(number)} ${model.scale}`;
  $("pain-name").textContent = model.scale === null ? "P(pain)" : "Value";
  $("pain").textContent = shown(number);
  $("pain-bar").style.width = `${model.scale === null && number !== null ? 100 * number : 0}%`;
  $("of-model").textContent = name;
  $("state").textContent = state;
  speak(`${$("verdict").textContent}, ${$("pain-name").textContent} ${shown(number)}, ${state}`);
}

// Screen readers are told of changes, and not ten times a second.
function speak(text) {
  const key = text.replace(/[\d.]+/g, ""), now = performance.now();
  if (key === spoken.text && now - spoken.at < 15_000) return;
  if (now - spoken.at < 2000) return;
  spoken = {text: key, at: now};
  $("spoken").textContent = text;
}

function showSide(rows) {
  $("side").replaceChildren(...rows.map(({name, said, state}) => {
    const row = element("tr");
    row.append(
      element("th", name, {scope: "row"}), element("td", said.label ?? "–"),
      element("td", shown(painOf(modelOf(name), said))), element("td", state),
    );
    return row;
  }));
}

function showMovements(movements) {
  const known = movements !== null && Object.keys(movements).length > 0;
  $("no-movements").hidden = known;
  $("movements").hidden = !known;
  if (!known) return;
  const largest = Object.entries(movements).sort((a, b) => b[1] - a[1]).slice(0, 12);
  $("movements").replaceChildren(...largest.map(([name, value]) => {
    const row = element("li"), bar = element("span", "", {class: "bar", "aria-hidden": "true"}), inner = element("span");
    inner.style.width = `${100 * Math.max(0, Math.min(1, value))}%`;
    bar.append(inner);
    row.append(element("span", name), bar, element("span", value.toFixed(2)));
    return row;
  }));
}

function showBox(box, width, height) {
  $("overlay").setAttribute("viewBox", `0 0 ${width || 4} ${height || 3}`);
  const [left, top, right, bottom] = box ?? [0, 0, 0, 0];
  for (const [key, value] of Object.entries({x: left, y: top, width: right - left, height: bottom - top})) {
    $("box").setAttribute(key, value);
  }
  $("box").classList.toggle("off", box === null);
}

function showCourse(fromS, toS, describe) {
  const names = [...course.keys()], numbers = [...course.values()].flat().map((point) => point[1]).filter(Number.isFinite);
  const scales = names.some((name) => modelOf(name).scale !== null);
  const low = scales ? Math.min(0, ...numbers) : 0, high = scales ? Math.max(1, ...numbers) : 1;
  const x = (s) => (600 * (s - fromS)) / Math.max(1e-6, toS - fromS), y = (p) => 172 - (164 * (p - low)) / (high - low);
  const drawn = [0, 0.5, 1].map((share) => {
    const at = y(low + share * (high - low));
    return inSvg("line", {x1: 0, x2: 600, y1: at, y2: at, class: "grid"});
  });
  names.forEach((name, i) => {
    for (const part of parts(course.get(name))) {
      const points = part.length === 1 ? [part[0], [part[0][0] + (toS - fromS) / 100, part[0][1]]] : part;
      drawn.push(inSvg("polyline", {
        points: points.map(([s, p]) => `${x(s).toFixed(1)},${y(p).toFixed(1)}`).join(" "), class: lineClass(i),
      }));
    }
  });
  $("course").replaceChildren(...drawn);
  const last = names.map((name) => `${name} ${shown(course.get(name).at(-1)?.[1] ?? null)}`).join(", ");
  $("course").setAttribute("aria-label", `${describe}. Last: ${last || "nothing"}.`);
  $("course-range").textContent = `from ${low.toFixed(0)} to ${high.toFixed(0)}`;
  if ($("legend").dataset.names !== names.join("\n")) {
    $("legend").dataset.names = names.join("\n");
    $("legend").replaceChildren(...names.map((name, i) => {
      const item = element("li"), key = inSvg("svg", {viewBox: "0 0 32 10", "aria-hidden": "true"});
      key.append(inSvg("line", {x1: 0, x2: 32, y1: 5, y2: 5, class: lineClass(i)}));
      item.append(key, element("span", name));
      return item;
    }));
  }
}

// A curve is broken where nothing was predicted.
function parts(points) {
  const found = [[]];
  for (const point of points) {
    if (point[1] === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((part) => part.length);
}

function note(row) {
  log.push({time: new Date().toISOString(), ...row});
  if (log.length > LOG_ROWS) log.shift();
  $("log-count").textContent = log.length;
  $("download").disabled = false;
}

function asCsv() {
  const names = ["time", "source", "model", "state", "label", "pain", "probabilities", "at_s", "lag_ms", "event"];
  const cell = (value) => {
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return [names, ...log.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const listed = (probabilities) => Object.entries(probabilities ?? {}).map(([name, p]) => `${name}=${p}`).join(" ");

// ---- camera

async function start() {
  problem("");
  if (!chosen().length) return problem("Choose a model.");
  if (!navigator.mediaDevices) {
    return problem("The browser gives a page its camera only over https, or on this machine itself (localhost).");
  }
  $("start").disabled = true;
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false, video: {facingMode: "user", width: {ideal: 640}, height: {ideal: 480}},
    });
  } catch (error) {
    $("start").disabled = false;
    const reasons = {NotAllowedError: "The camera was not allowed.", NotFoundError: "There is no camera."};
    return problem(reasons[error.name] ?? "The camera cannot be used. Does another program use it?");
  }
  clear();
  camera = {stream, socket: null, ready: false, pending: [], waits: 0, timer: 0, failures: 0, canvas: document.createElement("canvas")};
  for (const track of stream.getVideoTracks()) track.addEventListener("ended", () => stop("The camera was taken away."));
  $("video").srcObject = stream;
  $("video").hidden = false;
  $("empty").hidden = true;
  await $("video").play();
  setRunning(true);
  connect();
  camera.timer = setInterval(send, 1000 / SENT_PER_S);
}

function stop(reason = "") {
  if (camera === null) return;
  const {stream, socket, timer} = camera;
  camera = null;
  clearInterval(timer);
  socket?.close();
  for (const track of stream.getTracks()) track.stop();
  $("video").srcObject = null;
  $("empty").hidden = false;
  showBox(null, 4, 3);
  setRunning(false);
  $("same").hidden = true;
  blank();
  $("state").textContent = "stopped";
  $("lag").textContent = "–";
  $("alerts").replaceChildren();
  if (reason) problem(reason);
  $("start").focus();
}

function setRunning(runs) {
  document.body.classList.toggle("running", runs);
  $("stop").disabled = !runs;
  for (const control of document.querySelectorAll("#start, #file, fieldset input")) control.disabled = runs;
}

function connect() {
  const mine = camera, socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/stream`);
  mine.socket = socket;
  mine.ready = false;
  mine.pending = [];
  mine.waits = 0;
  let refused = "";
  socket.addEventListener("open", () => {
    const notify = $("notify").checked
      ? {on: Number($("notify-on").value), off: Number($("notify-off").value), on_s: Number($("notify-s").value)} : null;
    socket.send(JSON.stringify({token, models: chosen(), ...(notify && {notify})}));
  });
  socket.addEventListener("message", (event) => {
    if (camera !== mine || mine.socket !== socket) return;
    mine.waits = 0;
    const told = JSON.parse(event.data);
    if (told.type === "ready") {
      mine.ready = true;
      mine.failures = 0;
      problem("");
    } else if (told.type === "reading") showReading(told);
    else if (told.type === "notification") showNotification(told);
    else {
      refused = told.error;
      mine.pending.shift();
      problem(told.error);
    }
  });
  socket.addEventListener("close", (event) => {
    if (camera !== mine || mine.socket !== socket) return;
    if (event.code === 1008 && refused.includes("token")) {
      stop(refused);
      return needToken();
    }
    if (event.code === 1008) return stop(refused);
    connectAgain();
  });
}

function connectAgain() {
  const mine = camera, pause = PAUSES_MS[Math.min(mine.failures, PAUSES_MS.length - 1)];
  mine.socket.close();
  mine.socket = null;
  mine.ready = false;
  mine.failures += 1;
  lost("signal lost, connecting again");
  setTimeout(() => camera === mine && connect(), pause);
}

// No prediction is shown while there is none.
function lost(state) {
  const [name] = chosen();
  $("lag").textContent = "–";
  showVerdict(name, {}, state);
  showSide(chosen().map((each) => ({name: each, said: {}, state: "signal lost"})));
  showBox(null, 4, 3);
  for (const each of course.keys()) course.get(each).push([Date.now() / 1000, null]);
  note({source: "camera", state: "signal_lost"});
}

function send() {
  const mine = camera, video = $("video");
  if (mine === null || !mine.ready || mine.socket.readyState !== WebSocket.OPEN || !video.videoWidth) return;
  const now = performance.timeOrigin + performance.now(), waited = mine.waits ? now - mine.waits : 0;
  if (waited > 3 * STALE_MS) return connectAgain();
  if (waited > STALE_MS && !mine.silent) {
    mine.silent = true;
    lost("signal lost, the service does not answer");
  }
  // The picture of a camera that the system holds back is black, or an old one.
  if (mine.stream.getVideoTracks().every((track) => track.muted)) return;
  mine.pending = mine.pending.filter((captured) => now - captured < STALE_MS);
  if (mine.pending.length >= IN_FLIGHT || mine.socket.bufferedAmount > 0) return;
  const scale = Math.min(1, LARGEST_SIDE_PX / Math.max(video.videoWidth, video.videoHeight));
  mine.canvas.width = Math.round(video.videoWidth * scale);
  mine.canvas.height = Math.round(video.videoHeight * scale);
  mine.canvas.getContext("2d").drawImage(video, 0, 0, mine.canvas.width, mine.canvas.height);
  mine.pending.push(now);
  mine.waits ||= now;
  mine.canvas.toBlob(async (blob) => {
    if (blob === null || camera !== mine || mine.socket.readyState !== WebSocket.OPEN) return;
    const message = new Uint8Array(8 + blob.size);
    new DataView(message.buffer).setFloat64(0, now, true);
    message.set(new Uint8Array(await blob.arrayBuffer()), 8);
    if (mine.socket.readyState === WebSocket.OPEN) mine.socket.send(message);
  }, "image/jpeg", 0.8);
}

function showReading(told) {
  const now = performance.timeOrigin + performance.now(), at = told.captured_ms / 1000;
  camera.pending = camera.pending.filter((captured) => captured > told.captured_ms);
  camera.silent = false;
  const rows = Object.entries(told.models).map(([name, said]) => ({name, said, state: STATES[said.state] ?? said.state}));
  const seen = told.state !== "signal_lost", lag = seen ? now - told.captured_ms : null;
  $("lag").textContent = lag === null ? "–" : `${Math.round(lag)} ms`;
  $("same").hidden = told.state !== "other_face";
  if (!rows.length) {
    $("state").textContent = STATES[told.state];
    return;
  }
  const {name, said, state} = rows[0];
  showVerdict(name, said, state);
  showSide(rows);
  showMovements(told.movements);
  showBox(told.box, camera.canvas.width, camera.canvas.height);
  for (const row of rows) {
    const pain = painOf(modelOf(row.name), row.said), points = course.get(row.name) ?? [];
    points.push([at, pain]);
    while (points[0][0] < at - COURSE_S) points.shift();
    course.set(row.name, points);
    note({
      source: "camera", model: row.name, state: row.said.state, label: row.said.label, pain, at_s: at.toFixed(3),
      probabilities: listed(row.said.probabilities), lag_ms: lag === null ? "" : Math.round(lag),
    });
  }
  $("course-from").textContent = `${COURSE_S} s ago`;
  $("course-to").textContent = "now";
  showCourse(at - COURSE_S, at, `Course of the last ${COURSE_S} seconds`);
}

function showNotification(told) {
  const time = new Date(told.captured_ms).toLocaleTimeString();
  const words = {on: "is high", off: "is low again", acknowledged: "acknowledged", end: "is over"};
  const text = `${time}: ${told.watched} ${words[told.event] ?? told.event}${told.number === null ? "" : ` (${shown(told.number)})`}`;
  $("no-notifications").hidden = true;
  $("notifications").prepend(element("li", text));
  while ($("notifications").childElementCount > 100) $("notifications").lastElementChild.remove();
  note({source: "camera", event: `notification ${told.event}`, pain: told.number, at_s: (told.captured_ms / 1000).toFixed(3)});
  if (told.event === "on") {
    const alert = element("p"), button = element("button", "Acknowledge", {type: "button"});
    button.addEventListener("click", () => {
      if (camera?.ready) camera.socket.send(JSON.stringify({type: "acknowledge"}));
      alert.remove();
      document.title = "painseq";
      $("stop").focus();
    });
    alert.append(element("span", text), button);
    $("alerts").replaceChildren(alert);
    document.title = "(!) painseq";
  }
}

// ---- file

async function predictFile() {
  const [file] = $("file").files;
  if (!file) return;
  problem("");
  const names = chosen();
  if (!names.length) return problem("Choose a model.");
  clear();
  showFile(file);
  const form = new FormData();
  form.append("file", file);
  for (const name of names) form.append("model", name);
  $("state").textContent = "predicting the file …";
  $("start").disabled = $("file").disabled = true;
  try {
    const told = await asked("predict", {method: "POST", body: form});
    showPrediction(Array.isArray(told) ? {[names[0]]: told} : told);
  } catch (error) {
    problem(error.message);
    $("state").textContent = "no prediction";
  }
  $("start").disabled = $("file").disabled = false;
}

function showFile(file) {
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(file);
  const still = file.type.startsWith("image/");
  $("still").hidden = !still;
  $("video").hidden = still;
  $("video").controls = !still;
  if (still) $("still").src = shownUrl;
  else $("video").src = shownUrl;
  $("empty").hidden = true;
}

function showPrediction(told) {
  const rows = Object.entries(told).map(([name, found]) => {
    if (!Array.isArray(found)) return {name, said: {}, state: found.error, found: null};
    const said = found[0];
    return {name, said, found: said, state: said.faceless_frames === said.frames ? "no face" : `face in ${Math.round(100 * said.face_share)} % of the frames`};
  });
  const first = rows.find((row) => row.found !== null) ?? rows[0];
  showVerdict(first.name, first.said, first.state);
  $("warning").textContent = first.said.warning ?? "";
  showSide(rows);
  let end = 0;
  for (const {name, said, state, found} of rows) {
    if (found === null) continue;
    const model = modelOf(name);
    const numbers = said.frame_values ?? said.frame_probabilities.map((row) => row.slice(1).reduce((a, b) => a + b, 0));
    const points = [...said.frame_times_s.map((s, i) => [s, numbers[i]]), ...said.faceless_times_s.map((s) => [s, null])];
    course.set(name, points.sort((a, b) => a[0] - b[0]));
    end = Math.max(end, points.at(-1)?.[0] ?? 0);
    note({
      source: "file", model: name, state, label: said.label, pain: painOf(model, said), probabilities: listed(said.probabilities),
    });
  }
  $("course-from").textContent = "0 s";
  $("course-to").textContent = `${end.toFixed(1)} s`;
  showCourse(0, end || 1, `Course over ${end.toFixed(1)} seconds of the file`);
}

// Nothing said of an earlier picture stands beside another one, or beside none.
function blank() {
  for (const id of ["verdict", "pain", "of-model"]) $(id).textContent = "–";
  $("pain-bar").style.width = "0%";
  $("side").replaceChildren();
}

function clear() {
  blank();
  course = new Map();
  $("course").replaceChildren();
  $("warning").textContent = "";
  $("still").hidden = true;
  $("video").removeAttribute("src");
  $("video").controls = false;
  showMovements(null);
  showBox(null, 4, 3);
}

$("start").addEventListener("click", start);
$("stop").addEventListener("click", () => stop());
$("same").addEventListener("click", () => camera?.ready && camera.socket.send(JSON.stringify({type: "confirm_person"})));
$("file").addEventListener("change", predictFile);
$("download").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([asCsv()], {type: "text/csv"}));
  element("a", "", {href: url, download: "painseq.csv"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  loadModels();
});
window.addEventListener("pagehide", () => stop());
loadModels();
