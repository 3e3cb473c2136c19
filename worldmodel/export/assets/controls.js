// Actions of the visitor: by keys, sliders or buttons, and a gamepad.

const ARROWS = { arrowleft: [0, -1], arrowright: [0, 1], arrowdown: [1, -1], arrowup: [1, 1] };
/** Axes of a gamepad for the numbers of an action, with the sign of their highest value. */
const AXES = [[0, 1], [2, 1], [1, -1], [3, -1]];
const DEAD_ZONE = 0.15, MAX_SLIDERS = 24, MAX_BUTTONS = 24;

/** Makes an element with attributes and children. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The gamepad that is connected first, or null. */
function gamepad() {
  const pads = navigator.getGamepads ? navigator.getGamepads() : [];
  return [...pads].find((pad) => pad && pad.connected) || null;
}

/** Notices which buttons of a gamepad have been pressed since the last look. */
class PadButtons {
  constructor() {
    this.held = new Set();
  }

  pressed() {
    const buttons = gamepad()?.buttons || [], held = new Set(buttons.flatMap((button, i) => (button.pressed ? [i] : [])));
    const fresh = [...held].filter((i) => !this.held.has(i));
    this.held = held;
    return fresh;
  }
}

/** Numbers of a Box, each between its bounds; in the middle while nothing is pressed. */
class BoxControls {
  constructor({ low, high, dim, names, keys }, root) {
    Object.assign(this, { low, high, dim, names, keys: keys.slice(0, dim) });
    this.held = new Set();
    this.slid = new Float32Array(dim);
    this.values = new Float32Array(dim);
    this.rows = Array.from({ length: Math.min(dim, MAX_SLIDERS) }, (_, i) => this.row(i, root));
    this.hold = element("input", { type: "checkbox" });
    if (dim > MAX_SLIDERS) root.append(element("p", { class: "note" }, `${dim - MAX_SLIDERS} more numbers stay in the middle.`));
    root.append(element("label", { class: "hold" }, this.hold, " hold the sliders when released"));
  }

  row(i, root) {
    const name = this.names[i];
    const slider = element("input", { type: "range", min: -1, max: 1, step: 0.05, value: 0, "aria-label": name });
    const shown = element("output"), keys = this.keys[i] || [];
    const [down, up] = keys.map((key) => key.toUpperCase()).map((key) => element("kbd", {}, key));
    slider.addEventListener("input", () => (this.slid[i] = Number(slider.value)));
    for (const event of ["pointerup", "pointercancel", "touchend"]) {
      slider.addEventListener(event, () => this.hold.checked || (this.slid[i] = 0));
    }
    const row = element("div", { class: "slider" }, element("span", {}, name), down || "", slider, up || "", shown);
    root.append(row);
    return { slider, shown };
  }

  press(key) {
    const used = key in ARROWS ? ARROWS[key][0] < this.dim : this.keys.flat().includes(key);
    if (used) this.held.add(key);
    return used;
  }

  release(key) {
    this.held.delete(key);
  }

  releaseAll() {
    this.held.clear();
  }

  keyed(i) {
    const [down, up] = this.keys[i] || [];
    let value = Number(this.held.has(up)) - Number(this.held.has(down));
    for (const [key, [number, sign]] of Object.entries(ARROWS)) if (number === i && this.held.has(key)) value += sign;
    return Math.min(Math.max(value, -1), 1);
  }

  /** Updates the values from all devices; keys come before the gamepad, and that before sliders. */
  poll() {
    const pad = gamepad();
    for (let i = 0; i < this.dim; i++) {
      const [axis, sign] = AXES[i] || [], tilted = pad && axis !== undefined ? sign * (pad.axes[axis] || 0) : 0;
      const pushed = Math.abs(tilted) > DEAD_ZONE ? Math.min(Math.max(tilted, -1), 1) : 0;
      this.values[i] = this.keyed(i) || pushed || this.slid[i];
    }
    this.rows.forEach(({ slider, shown }, i) => {
      const text = this.action()[i].toFixed(2);
      if (shown.value === text) return;
      slider.value = this.values[i];
      shown.value = text;
    });
  }

  /** The action vector of the model, in [-1, 1]; -1 where a number has one value only. */
  vector() {
    return this.values.map((value, i) => (this.high[i] > this.low[i] ? value : -1));
  }

  /** The action of the environment. */
  action() {
    return Array.from(this.values, (value, i) => this.low[i] + ((value + 1) / 2) * (this.high[i] - this.low[i]));
  }
}

/** Discrete actions: the last one chosen stays. */
class DiscreteControls {
  constructor({ n, start }, root) {
    Object.assign(this, { n, start, chosen: 0, pad: new PadButtons() });
    if (n <= MAX_BUTTONS) {
      this.buttons = Array.from({ length: n }, (_, i) => {
        const key = i < 9 ? [element("kbd", {}, `${i + 1}`), " "] : [];
        return element("button", { type: "button", "aria-pressed": i === 0 }, ...key, `action ${start + i}`);
      });
      this.buttons.forEach((button, i) => button.addEventListener("click", () => this.choose(i)));
      root.append(element("div", { class: "choices", role: "group", "aria-label": "action" }, ...this.buttons));
    } else {
      this.select = element("select", { "aria-label": "action" });
      for (let i = 0; i < n; i++) this.select.append(element("option", { value: i }, `action ${start + i}`));
      this.select.addEventListener("change", () => this.choose(Number(this.select.value)));
      root.append(this.select);
    }
  }

  choose(i) {
    this.chosen = Math.min(Math.max(i, 0), this.n - 1);
    if (this.select) this.select.value = this.chosen;
    else this.buttons.forEach((button, place) => button.setAttribute("aria-pressed", place === this.chosen));
  }

  press(key) {
    const digit = /^[1-9]$/.test(key) ? Number(key) - 1 : -1;
    if (digit >= 0 && digit < this.n) this.choose(digit);
    else if (key === "arrowright" || key === "arrowup") this.choose(this.chosen + 1);
    else if (key === "arrowleft" || key === "arrowdown") this.choose(this.chosen - 1);
    else return false;
    return true;
  }

  release() {}

  releaseAll() {}

  /** Reacts to the buttons of a gamepad: the first four choose, left and right change the action. */
  poll() {
    for (const button of this.pad.pressed()) {
      if (button < Math.min(this.n, 4)) this.choose(button);
      else if (button === 14) this.choose(this.chosen - 1);
      else if (button === 15) this.choose(this.chosen + 1);
    }
  }

  vector() {
    const vector = new Float32Array(this.n);
    vector[this.chosen] = 1;
    return vector;
  }

  action() {
    return [this.start + this.chosen];
  }
}
