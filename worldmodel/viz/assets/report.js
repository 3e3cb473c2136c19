"use strict";
const RUNS = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function make(name, attributes, parent, text) {
  const node = name === "svg" || (parent && parent.namespaceURI === SVG)
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

/* The theme of the system, until the reader chooses one. */
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const redraws = [];
function setTheme(name) {
  root.dataset.theme = name;
  redraws.forEach((redraw) => redraw());
}
dark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () =>
  setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

/* Line charts. Each series has `name`, `className` and `values`, and optionally `dash` and `band`. */
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const marks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) marks.push(value);
  return { marks, digits: Math.max(0, -Math.floor(Math.log10(step)) + (step / power === 2.5 ? 1 : 0)) };
}

class Chart {
  constructor(figure, options) {
    Object.assign(this, { height: 330, digits: 3, onMove: null,
      position: (i) => `k = ${i}, ${round(this.x(i), 2)} s` }, options);
    this.figure = figure;
    this.width = clamp(figure.clientWidth, 280, 1040);
    const all = this.series.flatMap((s) => [...s.values, ...(s.band || []).flat()]).filter((v) => v !== null);
    this.last = Math.max(...this.series.map((s) => s.values.length)) - 1;
    this.low = this.zero === false ? Math.min(...all, 0) : 0;
    this.high = Math.max(...all, this.threshold || 0, this.low + 1e-9);
    this.box = { left: 66, right: 14, top: 32, bottom: 46 };
    this.svg = make("svg", { viewBox: `0 0 ${this.width} ${this.height}`, tabindex: 0, role: "slider",
      "aria-label": figure.getAttribute("aria-label"), "aria-valuemin": 0, "aria-valuemax": this.last }, figure);
    this.axes();
    this.series.forEach((s) => this.draw(s));
    this.cursor = make("line", { class: "cursor", y1: this.box.top, y2: this.height - this.box.bottom }, this.svg);
    this.readout = make("div", { class: "readout" }, figure);
    this.addListeners();
    this.move(options.start || 0, false);
  }
  px(i) { return this.box.left + (i / Math.max(this.last, 1)) * (this.width - this.box.left - this.box.right); }
  py(v) {
    const room = this.height - this.box.top - this.box.bottom;
    return this.box.top + room * (1 - (v - this.low) / (this.high - this.low));
  }
  axes() {
    const { left, right, bottom } = this.box;
    const vertical = ticks(this.low, this.high, 5);
    for (const value of vertical.marks) {
      const y = this.py(value);
      make("line", { class: "grid", x1: left, x2: this.width - right, y1: y, y2: y }, this.svg);
      make("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, this.svg, value.toFixed(vertical.digits));
    }
    const across = ticks(this.x(0), this.x(this.last), clamp(this.width / 110, 3, 8));
    const unit = (this.x(this.last) - this.x(0)) / Math.max(this.last, 1) || 1;
    for (const value of across.marks) {
      make("text", { x: this.px((value - this.x(0)) / unit), y: this.height - bottom + 20, "text-anchor": "middle" },
        this.svg, value.toFixed(across.digits));
    }
    make("text", { x: this.width - right, y: this.height - 8, "text-anchor": "end" }, this.svg, this.xLabel);
    make("text", { x: 10, y: 20 }, this.svg, this.yLabel);
    if (this.threshold) {
      const y = this.py(this.threshold);
      make("line", { class: "threshold", x1: left, x2: this.width - right, y1: y, y2: y }, this.svg);
    }
  }
  draw(series) {
    if (series.band) {
      const up = series.band.map((b, i) => `${this.px(i)},${this.py(b[1])}`);
      const down = series.band.map((b, i) => `${this.px(i)},${this.py(b[0])}`).reverse();
      make("polygon", { class: "band", points: [...up, ...down].join(" ") }, this.svg);
    }
    const points = series.values.map((v, i) => (v === null ? null : `${this.px(i)},${this.py(v)}`));
    series.node = make("polyline", { class: `line ${series.className}`, points: points.filter(Boolean).join(" "),
      "stroke-dasharray": series.dash || "none" }, this.svg);
  }
  addListeners() {
    const at = (event) => {
      const box = this.svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * this.width;
      return Math.round(((x - this.box.left) / (this.width - this.box.left - this.box.right)) * this.last);
    };
    const follow = (event) => {
      if (!this.clickOnly || event.type === "pointerdown" || event.buttons) this.move(at(event));
    };
    this.svg.addEventListener("pointermove", follow);
    this.svg.addEventListener("pointerdown", follow);
    this.svg.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      event.stopPropagation();
      this.move(this.index + steps[event.key]);
    });
  }
  move(index, notify = true) {
    this.index = clamp(index, 0, this.last);
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.px(this.index));
    this.readout.replaceChildren();
    const texts = [this.position(this.index)];
    make("span", {}, this.readout, texts[0]);
    for (const s of this.series) {
      const item = make("span", {}, this.readout);
      const key = make("svg", { viewBox: "0 0 26 10" }, item);
      make("line", { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": 3, class: s.className,
        "stroke-dasharray": s.dash || "none" }, key);
      texts.push(`${s.name} ${round(s.values[this.index], this.digits)}`);
      item.append(texts.at(-1));
    }
    this.svg.setAttribute("aria-valuenow", this.index);
    this.svg.setAttribute("aria-valuetext", texts.join("; "));
    if (notify && this.onMove) this.onMove(this.index);
  }
}

function drawCharts(article, { dt_seconds: dt, forecast: { angle }, reference, energy, collapse }) {
  const place = (name) => article.querySelector(`[data-chart="${name}"]`);
  const time = { x: (i) => i * dt, xLabel: "time ahead, s" };
  if (angle) {
    const series = [
      { name: "forecast", className: "model", values: angle.median_by_step, band: angle.interval_by_step },
      reference && { name: `reference model on the true state, ${reference.updates} updates`, className: "state",
        dash: "10 4", values: reference.median_by_step },
      angle.constant_velocity_by_step && { name: "constant velocity", className: "steady", dash: "2 5",
        values: angle.constant_velocity_by_step },
      { name: "persistence", className: "still", dash: "6 6", values: angle.persistence_by_step }];
    new Chart(place("forecast"), { ...time, series: series.filter(Boolean), threshold: angle.horizon.threshold_rad,
      yLabel: "median angle error, rad", start: 20 });
  }
  if (energy) {
    new Chart(place("energy"), { ...time, height: 260, digits: 2, zero: false, yLabel: `drift, ${energy.unit}`, series: [
      { name: "median drift", className: "model", values: energy.drift_by_step },
      { name: "median absolute drift", className: "state", dash: "8 4", values: energy.abs_drift_by_step }] });
  }
  const perDimension = (name, title, className, values) => new Chart(place(name), { height: 260, x: (i) => i + 1,
    xLabel: "dimension, sorted", yLabel: title, position: (i) => `dimension ${i + 1}`,
    series: [{ name: title, className, values: [...values].sort((a, b) => b - a) }] });
  perDimension("std", "standard deviation", "model", collapse.std.per_dimension);
  perDimension("spectrum", "eigenvalue of the covariance", "state", collapse.spectrum);
}

/* The tiles of a sprite sheet, drawn enlarged and smooth. */
class Sheet {
  constructor(sheet, ready) {
    this.sheet = sheet;
    this.image = new Image();
    this.image.onload = ready;
    this.image.src = sheet.uri;
  }
  draw(canvas, index, side) {
    const { width, height, columns } = this.sheet;
    const scale = side / Math.max(width, height);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.image, (index % columns) * width, Math.floor(index / columns) * height, width, height,
      0, 0, canvas.width, canvas.height);
    canvas.dataset.tile = index;
  }
}

class Player {
  constructor(section, player, dt) {
    Object.assign(this, { section, player, dt, episode: 0, step: 0, timer: null });
    this.get = (name) => section.querySelector(`[data-act="${name}"]`);
    this.scrub = this.get("scrub");
    this.scrub.max = player.steps - 1;
    player.episodes.forEach((e, i) => make("option", { value: i }, this.get("episode"), `${i + 1} (seed ${e.seed})`));
    this.sheet = new Sheet(player.sheet, () => this.show(0));
    this.get("play").addEventListener("click", () => this.toggle());
    this.get("back").addEventListener("click", () => this.jump(this.step - 1));
    this.get("forward").addEventListener("click", () => this.jump(this.step + 1));
    this.scrub.addEventListener("input", () => this.jump(Number(this.scrub.value)));
    this.get("episode").addEventListener("change", (event) => this.showEpisode(Number(event.target.value)));
    this.get("speed").addEventListener("change", () => { if (this.timer) { this.toggle(); this.toggle(); } });
    section.addEventListener("keydown", (event) => this.key(event));
    this.showEpisode(0);
  }
  showEpisode(episode) {
    this.episode = episode;
    const figure = this.section.querySelector('[data-chart="player"]');
    figure.replaceChildren();
    this.chart = new Chart(figure, { height: 230, clickOnly: true, x: (i) => i * this.dt, xLabel: "time, s",
      yLabel: this.player.measure, start: this.step, onMove: (step) => this.jump(step),
      series: [{ name: "error of the forecast", className: "model", values: this.player.episodes[episode].errors }] });
    this.show(this.step);
  }
  key(event) {
    const tag = event.target.tagName;
    const moves = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.player.steps - 1 };
    if (event.key === " " && tag !== "BUTTON" && tag !== "SELECT") this.toggle();
    else if (event.key in moves && tag !== "SELECT" && tag !== "INPUT") this.jump(moves[event.key]);
    else return;
    event.preventDefault();
  }
  toggle() {
    if (this.timer) return this.stop();
    if (this.step >= this.player.steps - 1) this.show(0);
    const pace = (this.dt * 1000) / Number(this.get("speed").value);
    this.timer = setInterval(() => {
      if (this.step >= this.player.steps - 1) this.stop();
      else this.show(this.step + 1);
    }, pace);
    this.label("❚❚", "Pause");
  }
  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.label("▶", "Play");
  }
  label(sign, name) {
    this.get("play").textContent = sign;
    this.get("play").setAttribute("aria-label", name);
  }
  jump(step) {
    if (this.timer) this.stop();
    this.show(step);
  }
  show(step) {
    this.step = clamp(step, 0, this.player.steps - 1);
    ["truth", "forecast", "reconstruction"].forEach((name, part) => {
      const tile = (this.episode * 3 + part) * this.player.steps + this.step;
      this.sheet.draw(this.section.querySelector(`[data-screen="${name}"]`), tile, 320);
    });
    this.scrub.value = this.step;
    this.section.querySelector('[data-out="time"]').textContent =
      `k = ${this.step}, ${round(this.step * this.dt, 2)} s`;
    this.chart.move(this.step, false);
  }
}

/* Colors: a ramp for quantities, and a cyclic one for angles. */
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const CYCLE = [[217, 95, 14], [122, 130, 20], [24, 140, 122], [60, 110, 190], [160, 80, 170], [217, 95, 14]];
function color(stops, fraction) {
  const at = clamp(fraction, 0, 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return `rgb(${stops[i].map((c, j) => Math.round(c + (stops[i + 1][j] - c) * (at - i))).join(",")})`;
}

class LatentMap {
  constructor(section, latent) {
    Object.assign(this, { section, latent, chosen: 0 });
    this.canvas = section.querySelector("[data-map]");
    this.thumb = section.querySelector("[data-thumb]");
    this.select = section.querySelector('[data-act="color"]');
    latent.quantities.forEach((q, i) => make("option", { value: i }, this.select, q.name));
    this.select.addEventListener("change", () => this.draw());
    this.bounds = ["x", "y"].map((axis) => [Math.min(...latent[axis]), Math.max(...latent[axis])]);
    if (latent.sheet) this.sheet = new Sheet(latent.sheet, () => this.describe());
    else this.thumb.hidden = true;
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    redraws.push(() => this.draw());
  }
  place(i) {
    const [x, y] = [this.latent.x[i], this.latent.y[i]].map((value, axis) => {
      const [low, high] = this.bounds[axis];
      return 0.04 + (0.92 * (value - low)) / (high - low || 1);
    });
    return [x * this.canvas.clientWidth, (1 - y) * this.canvas.clientHeight];
  }
  draw() {
    const sharp = window.devicePixelRatio || 1;
    const quantity = this.latent.quantities[Number(this.select.value)];
    this.canvas.width = this.canvas.clientWidth * sharp;
    this.canvas.height = this.canvas.clientHeight * sharp;
    const pen = this.canvas.getContext("2d");
    pen.scale(sharp, sharp);
    const [low, high] = quantity.cyclic ? [-Math.PI, Math.PI]
      : [Math.min(...quantity.values), Math.max(...quantity.values)];
    const stops = quantity.cyclic ? CYCLE : RAMP;
    quantity.values.forEach((value, i) => {
      pen.fillStyle = color(stops, (value - low) / (high - low || 1));
      pen.beginPath();
      pen.arc(...this.place(i), 3.4, 0, 7);
      pen.fill();
    });
    pen.strokeStyle = getComputedStyle(root).getPropertyValue("--ink");
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.arc(...this.place(this.chosen), 7, 0, 7);
    pen.stroke();
    this.legend(stops, low, high, quantity.unit);
    this.describe();
  }
  legend(stops, low, high, unit) {
    const legend = this.section.querySelector('[data-out="legend"]');
    legend.replaceChildren(low.toFixed(1));
    make("span", { class: "ramp" }, legend).style.background =
      `linear-gradient(to right, ${stops.map((rgb) => `rgb(${rgb})`).join()})`;
    legend.append(`${high.toFixed(1)} ${unit}`);
  }
  describe() {
    if (this.sheet) this.sheet.draw(this.thumb, this.chosen, 192);
    const list = this.section.querySelector('[data-out="values"]');
    list.replaceChildren();
    for (const q of this.latent.quantities) {
      make("dt", {}, list, q.name);
      make("dd", {}, list, `${round(q.values[this.chosen], q.unit === "steps" ? 0 : 2)} ${q.unit}`);
    }
    this.canvas.dataset.chosen = this.chosen;
  }
  choose(i) {
    if (i === this.chosen || i < 0) return;
    this.chosen = i;
    this.draw();
  }
  nearest(x, y, allowed) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.latent.x.length; i += 1) {
      const [px, py] = this.place(i);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least && allowed(i, px, py)) [best, least] = [i, distance];
    }
    return best;
  }
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    this.choose(this.nearest(event.clientX - box.left, event.clientY - box.top, () => true));
  }
  key(event) {
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in directions)) return;
    event.preventDefault();
    const [x, y] = this.place(this.chosen);
    const [dx, dy] = directions[event.key];
    this.choose(this.nearest(x, y, (i, px, py) => {
      const ahead = (px - x) * dx + (py - y) * dy;
      return i !== this.chosen && ahead > 0 && ahead >= Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    }));
  }
}

function drawComparison() {
  const figure = document.querySelector('[data-chart="comparison"]');
  const shown = RUNS.map((run, i) => ({ run, i })).filter(({ run }) => run.metrics.forecast.angle);
  if (!figure || !shown.length) return;
  const dashes = ["none", "10 4", "2 5", "6 6", "12 3 2 3", "4 2"];
  new Chart(figure, { x: (i) => i * shown[0].run.metrics.dt_seconds, xLabel: "time ahead, s",
    yLabel: "median angle error, rad", start: 20, threshold: shown[0].run.metrics.forecast.angle.horizon.threshold_rad,
    series: shown.map(({ run, i }) => ({ name: run.name, className: `c${i % 6}`, dash: dashes[i % 6],
      values: run.metrics.forecast.angle.median_by_step })) });
}

/* The charts of a run are drawn when it is first shown, because hidden elements have no size. */
function showRun(index) {
  document.querySelectorAll(".run").forEach((article, i) => {
    article.hidden = i !== index;
    const tab = document.getElementById(`tab-${i}`);
    if (tab) {
      tab.setAttribute("aria-selected", i === index);
      tab.tabIndex = i === index ? 0 : -1;
    }
    if (i !== index || article.dataset.drawn) return;
    article.dataset.drawn = true;
    const run = RUNS[i];
    drawCharts(article, run.metrics);
    const player = article.querySelector("[data-player]");
    if (player) new Player(player, run.player, run.metrics.dt_seconds);
    const latent = article.querySelector("[data-latent]");
    if (latent) new LatentMap(latent, run.latent);
  });
}
const tabs = [...document.querySelectorAll('[role="tab"]')];
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => showRun(i));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = (i + step + tabs.length) % tabs.length;
    showRun(next);
    tabs[next].focus();
  });
});

setTheme(dark.matches ? "dark" : "light");
drawComparison();
showRun(0);
