// The page: an imagined episode, what it is compared with, and how the visitor drives it.

const MAX_STEPS_PER_IMAGE = 8;
/** What the buttons of a gamepad do, beside actions: select resets, start pauses. */
const PAD_COMMANDS = { 8: "r", 9: " " };

const data = JSON.parse(document.getElementById("data").textContent);
const SPEEDS = data.speeds, SHOWN_STEPS = data.shownSteps;
const arrays = unpackWeights(data.weights, decodeBase64(document.getElementById("weights").textContent));
const world = new WorldModel(data.model, arrays);
const pendulum = data.pendulum && new Pendulum(data.pendulum);
const readAngles = pendulum && pendulum.probe && angleProbe(pendulum.probe, arrays);
const find = (name) => document.querySelector(`[data-${name}]`);
const all = (name) => [...document.querySelectorAll(`[data-${name}]`)];

/** An imagined episode, and the true physics under the same actions where they are known. */
class Episode {
  reset(start) {
    const from = start * data.latentDim;
    this.start = start;
    this.z = world.clip(arrays[data.starts.latents].slice(from, from + data.latentDim));
    this.truth = pendulum && pendulum.states[start];
    Object.assign(this, { steps: 0, reward: 0, total: 0, termination: 0, trueReward: 0, over: false });
    Object.assign(this, { rewards: [], trueRewards: [], errors: [], path: [] });
    this.note();
  }

  /** Takes one step under an action vector of the model and the same action of the environment. */
  step(vector, action) {
    const next = world.predict(this.z, vector);
    const { reward, termination } = world.outcome(this.z, vector, next);
    Object.assign(this, { reward, termination, steps: this.steps + 1, total: this.total + reward });
    this.over = termination >= data.threshold;
    this.note(next);
    this.z = world.clip(next);
    keep(this.rewards, reward);
    if (!pendulum) return;
    ({ state: this.truth, reward: this.trueReward } = pendulum.step(this.truth, action));
    keep(this.trueRewards, this.trueReward);
    this.compare();
  }

  /** Notes where a latent is. */
  note(z = this.z) {
    this.distance = world.distance(z);
    this.outside = world.outside(z);
    keep(this.path, project(z));
    if (this.steps === 0 && pendulum) this.compare();
  }

  /** Measures the mean error of both angles. */
  compare() {
    if (!readAngles) return;
    this.angles = readAngles(this.z);
    const errors = this.angles.map((angle, i) => Math.abs(wrapAngle(angle - this.truth[i])));
    keep(this.errors, (errors[0] + errors[1]) / 2);
  }
}

function keep(values, value) {
  values.push(value);
  if (values.length > SHOWN_STEPS) values.shift();
}

/** Projects a latent onto the two directions in which training latents vary most. */
function project(z) {
  const mean = arrays[data.map.mean], axes = arrays[data.map.axes], size = z.length, xy = [0, 0];
  for (let i = 0; i < size; i++) {
    xy[0] += (z[i] - mean[i]) * axes[i];
    xy[1] += (z[i] - mean[i]) * axes[size + i];
  }
  return xy;
}

const episode = new Episode();
const controls = new (data.actions.kind === "box" ? BoxControls : DiscreteControls)(data.actions, find("actions"));
const padButtons = new PadButtons();
const view = { playing: !matchMedia("(prefers-reduced-motion: reduce)").matches, speed: SPEEDS.indexOf(1), pending: 0, last: 0, changed: true };

/** Scales a canvas to the pixels of the screen; returns its context and its size in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const style = getComputedStyle(document.documentElement);
const color = (name) => style.getPropertyValue(`--${name}`).trim();

/** Draws the decoded frame at its own size; the page enlarges it. */
function drawFrame(canvas) {
  const { size, channels } = data.model.decoder, pixels = world.decode(episode.z);
  if (canvas.width !== size) Object.assign(canvas, { width: size, height: size });
  const image = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * pixels[channels * i + (c % channels)]);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawAngles(canvas, angles) {
  const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
  if (canvas.width !== side) Object.assign(canvas, { width: side, height: side });
  drawPendulum(canvas, angles, pendulum);
}

/** Draws training latents, and the path of the episode among them. */
function drawMap(canvas) {
  const { context, width, height } = prepare(canvas), cloud = arrays[data.map.cloud];
  let reach = 1e-9;
  for (const value of cloud) reach = Math.max(reach, Math.abs(value));
  for (const xy of episode.path) reach = Math.max(reach, Math.abs(xy[0]), Math.abs(xy[1]));
  const scale = (0.46 * Math.min(width, height)) / reach;
  const place = ([x, y]) => [width / 2 + x * scale, height / 2 - y * scale];
  context.fillStyle = color("cloud");
  for (let i = 0; i < cloud.length; i += 2) {
    const [x, y] = place([cloud[i], cloud[i + 1]]);
    context.fillRect(x - 1, y - 1, 2, 2);
  }
  context.strokeStyle = color("model");
  context.lineWidth = 2;
  context.lineJoin = "round";
  const points = episode.path.map(place);
  for (let i = 1; i < points.length; i++) {
    context.globalAlpha = Math.max(0.12, 1 - (points.length - i) / 120);
    context.beginPath();
    context.moveTo(...points[i - 1]);
    context.lineTo(...points[i]);
    context.stroke();
  }
  context.globalAlpha = 1;
  context.fillStyle = color(episode.outside ? "alarm" : "model");
  context.beginPath();
  context.arc(...points[points.length - 1], 6, 0, 2 * Math.PI);
  context.fill();
}

/** Draws series of numbers over the last steps, with the bounds of the axis. */
function drawChart(canvas, series, least = Infinity, most = -Infinity) {
  const { context, width, height } = prepare(canvas), left = 46, values = series.flatMap((one) => one.values);
  let low = Math.min(least, ...values), high = Math.max(most, ...values);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  if (high - low < 1e-6) [low, high] = [low - 0.5, high + 0.5];
  const y = (value) => height - 8 - ((value - low) / (high - low)) * (height - 16);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.lineWidth = 1;
  for (const bound of [low, high]) {
    context.fillStyle = color("soft");
    context.fillText(bound.toFixed(2), left - 6, y(bound));
    context.strokeStyle = color("line");
    context.beginPath();
    context.moveTo(left, y(bound));
    context.lineTo(width, y(bound));
    context.stroke();
  }
  context.lineWidth = 2;
  for (const { values: numbers, paint } of series) {
    context.strokeStyle = color(paint);
    context.beginPath();
    numbers.forEach((value, i) => context.lineTo(left + (i / (SHOWN_STEPS - 1)) * (width - left - 2), y(value)));
    context.stroke();
  }
}

function write(name, text) {
  const place = find(name);
  if (place && place.textContent !== text) place.textContent = text;
}

function describe() {
  const seconds = episode.steps * data.dt;
  write("time", `${seconds.toFixed(2)} s`);
  write("steps", `${episode.steps} steps`);
  write("reward", episode.reward.toFixed(3));
  write("total", episode.total.toFixed(2));
  write("termination", `${(100 * episode.termination).toFixed(episode.termination > 0.1 ? 0 : 1)} %`);
  write("true-reward", episode.trueReward.toFixed(3));
  const error = episode.errors[episode.errors.length - 1];
  write("error", error === undefined ? "–" : `${error.toFixed(3)} rad`);
  write("distance", episode.distance.toFixed(2));
  find("bar").style.width = `${Math.min(100, 50 * episode.distance)}%`;
  find("domain").classList.toggle("alarm", episode.outside);
  const state = episode.over ? "over" : episode.outside ? "outside" : view.playing ? "playing" : "paused";
  const texts = {
    over: "Termination predicted: reset to go on.",
    outside: "Out of distribution: do not trust the model.",
    playing: "Inside the training distribution.",
    paused: "Paused.",
  };
  write("state", texts[state]);
  find("state").className = `state ${state}`;
}

function draw() {
  const imagined = find("imagined"), truth = find("truth");
  if (data.model.decoder) drawFrame(imagined);
  else if (episode.angles) drawAngles(imagined, episode.angles);
  if (truth) drawAngles(truth, episode.truth);
  drawMap(find("map"));
  drawChart(find("rewards"), [{ values: episode.trueRewards, paint: "truth" }, { values: episode.rewards, paint: "model" }]);
  if (find("errors")) drawChart(find("errors"), [{ values: episode.errors, paint: "model" }], 0, 0.5);
  describe();
}

function reset(start = episode.start) {
  const count = data.starts.count;
  episode.reset(((start % count) + count) % count);
  all("start").forEach((button, i) => button.setAttribute("aria-pressed", i === episode.start));
  Object.assign(view, { pending: 0, changed: true });
}

function step() {
  if (episode.over) return;
  episode.step(controls.vector(), controls.action());
  view.changed = true;
}

function play(playing = !view.playing) {
  Object.assign(view, { playing, pending: 0, changed: true });
  write("play", playing ? "Pause" : "Play");
}

function changeSpeed(change) {
  view.speed = Math.min(Math.max(view.speed + change, 0), SPEEDS.length - 1);
  write("speed", `${SPEEDS[view.speed]}×`);
}

const COMMANDS = {
  " ": () => play(),
  n: () => (play(false), step()),
  r: () => reset(),
  ",": () => reset(episode.start - 1),
  ".": () => reset(episode.start + 1),
  "-": () => changeSpeed(-1),
  "+": () => changeSpeed(1),
  "=": () => changeSpeed(1),
};

/** Whether a key belongs to the element that has the focus, such as a slider. */
function isTaken(target, key) {
  const kind = target.tagName;
  if (kind === "SELECT" || kind === "INPUT") return key.startsWith("arrow") || key === " ";
  return (kind === "BUTTON" || kind === "SUMMARY") && key === " ";
}

addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event.target, key)) return;
  if (controls.press(key)) event.preventDefault();
  else if (key in COMMANDS) {
    event.preventDefault();
    if (!event.repeat || key === "n") COMMANDS[key]();
  }
});
addEventListener("keyup", (event) => controls.release(event.key.toLowerCase()));
addEventListener("blur", () => controls.releaseAll());
addEventListener("resize", () => (view.changed = true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (view.changed = true));
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && event.detail > 0) button.blur(); // so that the space bar pauses after a click
});

const ACTS = {
  play: () => play(),
  step: COMMANDS.n,
  reset: () => reset(),
  slower: () => changeSpeed(-1),
  faster: () => changeSpeed(1),
};
all("act").forEach((button) => button.addEventListener("click", ACTS[button.dataset.act]));

/** Makes a button for each start, with its real frame. */
function showStarts() {
  const { sheet, count } = data.starts, picture = sheet && new Image();
  for (let i = 0; i < count; i++) {
    const button = element("button", { type: "button", "data-start": i, "aria-pressed": false, "aria-label": `start ${i + 1}` });
    button.addEventListener("click", () => reset(i));
    button.append(sheet ? element("canvas", { width: sheet.width, height: sheet.height }) : `${i + 1}`);
    find("starts").append(button);
  }
  if (!sheet) return;
  picture.addEventListener("load", () => {
    all("start").forEach((button, i) => {
      const x = (i % sheet.columns) * sheet.width, y = Math.floor(i / sheet.columns) * sheet.height;
      const context = button.firstChild.getContext("2d");
      context.drawImage(picture, x, y, sheet.width, sheet.height, 0, 0, sheet.width, sheet.height);
    });
  });
  picture.src = sheet.uri;
}

/** Takes the steps that are due since the last image. */
function animate(now) {
  controls.poll();
  for (const button of padButtons.pressed()) if (button in PAD_COMMANDS) COMMANDS[PAD_COMMANDS[button]]();
  if (view.playing && !episode.over) {
    view.pending += (Math.min(now - view.last, 250) / 1000) * (SPEEDS[view.speed] / data.dt);
    const due = Math.floor(view.pending);
    view.pending -= due;
    for (let i = 0; i < Math.min(due, MAX_STEPS_PER_IMAGE); i++) step();
  }
  view.last = now;
  if (view.changed) draw();
  view.changed = false;
  requestAnimationFrame(animate);
}

showStarts();
reset(0);
play(view.playing);
window.dream = { data, world, episode, pendulum, controls, view, reset, play, draw };
requestAnimationFrame(animate);
