import { make, put, short, calm, root, fail, voice, button, painter, sender, mounter, widget } from "./dom.js";
// The playground: two energies of one configuration, side by side.
// The formulas are those of elf.Harmonic and elf.PairEnergy with normalize="sum", in double precision; the tests compare them.

const R_MIN = 1e-2, LARGEST = 64;

export const SPRINGS = {
  constant: (r, { k }) => k,
  inverse: (r, { k }) => k / Math.max(r, R_MIN),
  inverse_square: (r, { k }) => k / Math.max(r, R_MIN) ** 2,
  exponential: (r, { k, length }) => k * Math.exp(-r / length),
};

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** Spring constants k_ij of the target: from a formula, or the matrix that Python sent for a spring of its own. */
export function constants(target, springs) {
  if (springs.name === "custom") return springs.matrix;
  const formula = SPRINGS[springs.name];
  return target.map((a, i) => target.map((b, j) => (i === j ? 0 : formula(distance(a, b), springs))));
}

/** Eq. 6: sum_i |prediction_i - target_i|^2 and the force on each particle. */
export function squaredError(prediction, target) {
  let value = 0;
  const forces = prediction.map((p, i) => {
    const dx = p[0] - target[i][0], dy = p[1] - target[i][1];
    value += dx * dx + dy * dy;
    return [-2 * dx, -2 * dy];
  });
  return { value, forces };
}

/** Eq. 7: sum_{i<j} k_ij (r_ij - rhat_ij)^2, the force on each particle, and each spring's tension 2 k_ij (rhat_ij - r_ij). */
export function pairEnergy(prediction, target, k) {
  let value = 0;
  const forces = prediction.map(() => [0, 0]);
  const bonds = [];
  for (let i = 0; i < prediction.length; i++) {
    for (let j = i + 1; j < prediction.length; j++) {
      const rhat = distance(prediction[i], prediction[j]);
      const stretch = rhat - distance(target[i], target[j]);
      const tension = 2 * k[i][j] * stretch;
      value += k[i][j] * stretch * stretch;
      bonds.push({ i, j, tension });
      if (rhat === 0) continue; // no direction to push in: the force is taken as zero, as in elf
      for (const axis of [0, 1]) {
        const pull = (tension * (prediction[j][axis] - prediction[i][axis])) / rhat;
        forces[i][axis] += pull;
        forces[j][axis] -= pull;
      }
    }
  }
  return { value, forces, bonds };
}

export const centroid = (points) =>
  [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);

export function rotated(points, angle) {
  const [cx, cy] = centroid(points), c = Math.cos(angle), s = Math.sin(angle);
  return points.map(([x, y]) => [cx + c * (x - cx) - s * (y - cy), cy + s * (x - cx) + c * (y - cy)]);
}

export const mirrored = (points) => {
  const [cx] = centroid(points);
  return points.map(([x, y]) => [2 * cx - x, y]);
};

/** What is wrong with a configuration, or "" if nothing is. */
export function problem(points, count) {
  if (!Array.isArray(points)) return "should be a list of points";
  if (points.length < 1 || points.length > LARGEST) return `has ${points.length} particles; it should have 1 to ${LARGEST}`;
  if (count !== undefined && points.length !== count) return `has ${points.length} particles, the target has ${count}`;
  const good = (p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite);
  const bad = points.findIndex((p) => !good(p));
  return bad < 0 ? "" : `should have two finite numbers for each particle; number ${bad + 1} has not`;
}

function springsProblem(springs, count) {
  const good = (value) => Number.isFinite(value) && value >= 0;
  if (springs?.name === "custom") {
    const fits = Array.isArray(springs.matrix) && springs.matrix.length === count && springs.matrix.every((row) => row.length === count && row.every(good));
    return fits ? "" : `springs should be ${count} x ${count} constants, finite and 0 or more`;
  }
  if (!Object.hasOwn(SPRINGS, springs?.name ?? "")) return `springs should be one of ${Object.keys(SPRINGS).join(", ")}`;
  return good(springs.k) && (springs.name !== "exponential" || springs.length > 0) ? "" : "springs should have a finite k, 0 or more, and a positive length";
}

const STYLES = `
.elf-playground { max-width: 46rem; }
.elf-playground .elf-panels { display: grid; grid-template-columns: 1fr 1fr; gap: 0.75rem; }
@container (max-width: 30rem) { .elf-playground .elf-panels { grid-template-columns: 1fr; } }
.elf-playground .elf-caption { display: flex; justify-content: space-between; align-items: baseline; gap: 0.5rem; text-align: left; }
.elf-playground .elf-value { font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.elf-playground .elf-mse .elf-value { color: var(--elf-mse-text); }
.elf-playground .elf-energy .elf-value { color: var(--elf-energy); }
.elf-playground .elf-meter { height: 6px; border-radius: 3px; background: color-mix(in srgb, currentColor 15%, transparent); }
.elf-playground .elf-meter > div { height: 100%; border-radius: 3px; width: 0; }
.elf-playground .elf-mse .elf-meter > div { background: var(--elf-mse); }
.elf-playground .elf-energy .elf-meter > div { background: var(--elf-energy); }
.elf-playground svg {
  aspect-ratio: 1; margin-top: 0.35rem; border-radius: 8px; overflow: hidden; touch-action: manipulation; user-select: none;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent);
}
.elf-playground .elf-movable { cursor: grab; outline: none; touch-action: none; }
.elf-playground .elf-movable:active { cursor: grabbing; }
.elf-playground .elf-movable > text { fill: #00182e; font-weight: 600; }
.elf-playground .elf-halo { fill: transparent; stroke: transparent; }
.elf-playground .elf-movable:focus-visible .elf-halo { stroke: currentColor; }
`;

const ARROW = 0.25; // page length of an arrow per unit of force, the same in both panels
const TITLES = { mse: "Squared error (MSE)", energy: "Pair energy" };

/** One panel: an SVG that shows target, prediction, springs and forces, in the world's coordinates with y upwards. */
function panel(parent, kind, state, act) {
  const figure = make("div", { class: `elf-${kind}` }, "", parent);
  const caption = make("div", { class: "elf-caption" }, "", figure);
  make("span", {}, TITLES[kind], caption);
  const value = make("span", { class: "elf-value", "data-elf-value": kind }, "", caption);
  const meter = make("div", {}, "", make("div", { class: "elf-meter", "aria-hidden": "true" }, "", figure));
  // The right-hand panel moves with the pointer too, but is hidden from the keyboard: the same particles, one tab stop each.
  const first = kind === "mse";
  const box = make("svg", first ? { role: "group", "aria-label": "Particles to drag" } : { "aria-hidden": "true" }, "", figure);
  put(box, { viewBox: "-100 -100 200 200", "data-elf-panel": kind });
  const [springs, targets, ring, arrows, particles] = ["springs", "targets", "ring", "arrows", "particles"].map(() => make("g", {}, "", box));
  const u = state.half / 100;
  const X = (p) => (p[0] - state.centre[0]) / u, Y = (p) => -(p[1] - state.centre[1]) / u;
  const world = (event) => {
    const rect = box.getBoundingClientRect();
    const scale = (2 * state.half) / rect.width;
    return [state.centre[0] + (event.clientX - rect.left) * scale - state.half, state.centre[1] - (event.clientY - rect.top) * scale + state.half];
  };

  const n = state.target.length;
  const size = n > 16 ? 4 : n > 6 ? 5.5 : 7;
  const name = (i) => state.names?.[i] ?? String(i + 1);
  const bondLines = [], trapLines = [], dots = [], arrowPaths = [];
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n && kind === "energy"; j++) bondLines.push(make("line", { "stroke-linecap": "round" }, "", springs));
    if (kind === "mse") trapLines.push(make("line", { stroke: "var(--elf-mse)", "stroke-width": 1.4, "stroke-dasharray": "3 3" }, "", springs));
    const ghost = make("g", {}, "", targets);
    make("circle", { cx: X(state.target[i]), cy: Y(state.target[i]), r: size + 1.5, fill: "none", stroke: "var(--elf-target)", "stroke-width": 1.6 }, "", ghost);
    if (n <= 6 && kind === "mse") make("text", { x: X(state.target[i]), y: Y(state.target[i]), "font-size": 6.5 }, name(i), ghost);
    arrowPaths.push(make("path", { fill: `var(--elf-${kind})`, stroke: `var(--elf-${kind})`, "stroke-width": 1.8, "stroke-linejoin": "round", "pointer-events": "none" }, "", arrows));
    const dot = make("g", { class: "elf-movable", "data-elf-particle": i }, "", particles);
    make("circle", { class: "elf-halo", r: size + 5, "stroke-width": 1.5 }, "", dot);
    make("circle", { r: size, fill: "var(--elf-prediction)" }, "", dot);
    if (n <= 16) make("text", { "font-size": size + 1 }, name(i), dot);
    if (first) put(dot, { tabindex: 0, role: "button", "aria-roledescription": "movable particle" });
    grab(dot, (event) => act.move(i, world(event)), act);
    dot.addEventListener("keydown", (event) => {
      const step = state.half * (event.shiftKey ? 0.1 : 0.02);
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      act.move(i, [state.prediction[i][0] + by[0], state.prediction[i][1] + by[1]]);
      act.done(false);
    });
    dots.push(dot);
  }

  const circle = make("circle", { fill: "none", stroke: "currentColor", "stroke-opacity": 0.35, "stroke-dasharray": "1 4" }, "", ring);
  const knob = make("g", { class: "elf-movable", "data-elf-knob": kind }, "", ring);
  make("circle", { class: "elf-halo", r: 10, "stroke-width": 1.5 }, "", knob);
  make("circle", { r: 5, fill: "currentColor" }, "", knob);
  const degrees = make("text", { "font-size": 7 }, "", ring);
  if (first) put(knob, { tabindex: 0, role: "slider", "aria-label": "Rotate the prediction", "aria-valuemin": -180, "aria-valuemax": 180 });
  grab(knob, (event) => {
    const [x, y] = world(event), [cx, cy] = centroid(state.prediction);
    act.turn(Math.atan2(y - cy, x - cx) - Math.PI / 2 - state.angle);
  }, act);
  knob.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: 5, ArrowUp: 5, ArrowRight: -5, ArrowDown: -5 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    act.turn((by * Math.PI) / 180);
    act.done(false);
  });

  return (result, top) => {
    value.textContent = short(result.value);
    meter.style.width = `${Math.min(100, (100 * Math.sqrt(result.value)) / Math.sqrt(top))}%`;
    const p = state.prediction;
    p.forEach((point, i) => {
      put(dots[i], { transform: `translate(${X(point)} ${Y(point)})` });
      if (first) put(dots[i], { "aria-label": `Particle ${state.names ? `${i + 1}, ${name(i)},` : i + 1} at x ${point[0].toFixed(2)}, y ${point[1].toFixed(2)}. Move it with the arrow keys.` });
      put(arrowPaths[i], { d: arrowPath(X(point), Y(point), (result.forces[i][0] * ARROW) / u, (-result.forces[i][1] * ARROW) / u) });
      if (kind === "mse") put(trapLines[i], { x1: X(point), y1: Y(point), x2: X(state.target[i]), y2: Y(state.target[i]) });
    });
    (result.bonds ?? []).forEach(({ i, j, tension }, b) => {
      // Half of the strongest spring's constant, stretched by the picture's half width, is full colour.
      const strength = Math.sqrt(Math.min(1, Math.abs(tension) / state.fullTension));
      const tone = tension > 0 ? "var(--elf-stretched)" : "var(--elf-squeezed)";
      put(bondLines[b], {
        x1: X(p[i]), y1: Y(p[i]), x2: X(p[j]), y2: Y(p[j]),
        stroke: `color-mix(in srgb, ${tone} ${Math.round(100 * strength)}%, #8a8f98)`,
        "stroke-width": (n > 6 ? 0.5 : 1) * (1.2 + 3.3 * Math.sqrt(state.stiff[b])) * (0.6 + 0.8 * strength),
        "stroke-dasharray": tension < 0 && strength > 0.05 ? "5 4" : "none",
      });
    });
    const c = centroid(p);
    const radius = Math.min(88, Math.max(...p.map((q) => distance(q, c)), state.half * 0.2) / u + size + 13);
    put(circle, { cx: X(c), cy: Y(c), r: radius });
    const kx = X(c) + radius * Math.cos(state.angle + Math.PI / 2), ky = Y(c) - radius * Math.sin(state.angle + Math.PI / 2);
    put(knob, { transform: `translate(${kx} ${ky})` });
    const turn = Math.round((Math.atan2(Math.sin(state.angle), Math.cos(state.angle)) * 180) / Math.PI);
    put(degrees, { x: kx + (kx > X(c) + radius / 2 ? -16 : 16), y: ky });
    degrees.textContent = turn ? `${turn}°` : "turn";
    if (first) put(knob, { "aria-valuenow": turn, "aria-valuetext": `${turn} degrees` });
  };
}

function arrowPath(x, y, dx, dy) {
  const length = Math.hypot(dx, dy);
  if (length < 1.2) return "";
  const head = Math.min(6, length), ux = dx / length, uy = dy / length;
  const bx = x + dx - head * ux, by = y + dy - head * uy, w = head * 0.45;
  return `M${x} ${y}L${bx} ${by}L${bx - w * uy} ${by + w * ux}L${x + dx} ${y + dy}L${bx + w * uy} ${by - w * ux}L${bx} ${by}Z`;
}

function grab(node, move, act) {
  // A finger on a particle drags it; a finger beside it scrolls the page.
  node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.focus?.({ preventScroll: true });
    node.setPointerCapture(event.pointerId);
    act.start();
    let moved = false;
    const on = (next) => { moved = true; move(next); };
    const end = () => {
      for (const [name, listener] of [["pointermove", on], ["pointerup", end], ["pointercancel", end]]) node.removeEventListener(name, listener);
      act.done(moved);
    };
    for (const [name, listener] of [["pointermove", on], ["pointerup", end], ["pointercancel", end]]) node.addEventListener(name, listener);
  });
}

function render({ model, el }) {
  const home = root(el, "playground", "Playground: two energies of one configuration", STYLES);
  const body = make("div", {}, "", home);
  const state = { angle: 0, dragging: false, frame: 0, release: "stay" };
  const out = sender(model, "prediction", () => state.prediction.map((p) => [...p]));
  let paint = null;

  const changed = () => { paint.ask(); out.send(); };
  const stop = () => { cancelAnimationFrame(state.frame); state.frame = 0; home.dataset.elfBusy = ""; };
  const clamp = (x, middle, reach) => Math.min(middle + reach, Math.max(middle - reach, x));
  const act = {
    start: () => { stop(); state.dragging = true; },
    move: (i, place) => { stop(); state.prediction[i] = place.map((x, a) => clamp(x, state.centre[a], 0.95 * state.half)); changed(); },
    turn: (angle) => { stop(); state.angle += angle; state.prediction = rotated(state.prediction, angle); changed(); },
    done: (let_go) => {
      state.dragging = false;
      out.flush();
      paint.now();
      if (let_go && state.release !== "stay") descend(state.release);
      else say();
    },
  };
  const evaluate = () => ({ mse: squaredError(state.prediction, state.target), energy: pairEnergy(state.prediction, state.target, state.k) });
  const say = () => { const { mse, energy } = evaluate(); state.say(`Squared error ${short(mse.value)}, pair energy ${short(energy.value)}.`); };

  function descend(kind) {
    stop();
    const stiffest = Math.max(...state.k.map((row) => row.reduce((sum, k) => sum + k, 0)));
    const rate = kind === "mse" ? 0.03 : Math.min(0.15, 0.12 / Math.max(stiffest, 1e-9));
    const still = () => Math.max(...state.forces.map((f) => Math.hypot(...f))) < 1e-4 * state.half;
    const step = () => {
      state.forces = evaluate()[kind].forces;
      state.prediction = state.prediction.map((p, i) => p.map((x, a) => x + rate * state.forces[i][a]));
    };
    const rest = () => { stop(); out.flush(); paint.now(); say(); };
    let left = 900;
    if (calm()) { do step(); while (--left && !still()); rest(); return; }
    home.dataset.elfBusy = kind;
    const tick = () => {
      step(); step();
      changed();
      if ((left -= 2) > 0 && !still()) state.frame = requestAnimationFrame(tick);
      else rest();
    };
    state.frame = requestAnimationFrame(tick);
  }

  function build() {
    stop();
    body.replaceChildren();
    const target = model.get("target"), prediction = model.get("prediction"), springs = model.get("springs");
    const wrong = (problem(target) && `target ${problem(target)}`) || (problem(prediction, target.length) && `prediction ${problem(prediction, target.length)}`) || springsProblem(springs, target.length);
    home.dataset.elfState = wrong ? "error" : "ready";
    if (wrong) { fail(body, `The playground cannot draw this: ${wrong}.`); paint = null; return; }
    Object.assign(state, { target, prediction: prediction.map((p) => [...p]), begin: prediction.map((p) => [...p]), angle: 0 });
    state.springs = { ...springs };
    state.given = JSON.stringify(springs);
    state.centre = centroid(target);
    const known = (model.get("presets") ?? []).find((preset) => JSON.stringify(preset.target) === JSON.stringify(target));
    state.names = model.get("names")?.length === target.length ? model.get("names") : known?.names;
    const reach = Math.max(...[...target, ...prediction].map((p) => distance(p, state.centre)), 1e-3);
    state.half = 1.75 * reach;

    const panels = make("div", { class: "elf-panels" }, "", body);
    const left = panel(panels, "mse", state, act), right = panel(panels, "energy", state, act);
    state.stiffen = () => {
      state.k = constants(target, state.springs);
      const largest = Math.max(...state.k.flat(), 1e-9);
      state.fullTension = largest * 0.5 * state.half;
      state.stiff = [];
      for (let i = 0; i < target.length; i++) for (let j = i + 1; j < target.length; j++) state.stiff.push(state.k[i][j] / largest);
      // Full meters: every particle half a picture away from its place; every spring stretched by as much.
      state.top = [target.length * 0.25 * state.half ** 2, Math.max(state.k.flat().reduce((a, b) => a + b, 0) / 2, 1e-9) * 0.25 * state.half ** 2];
    };
    paint = painter(home, () => {
      const { mse, energy } = evaluate();
      left(mse, state.top[0]);
      right(energy, state.top[1]);
      Object.assign(home.dataset, { elfMse: mse.value, elfEnergy: energy.value, elfPrediction: JSON.stringify(state.prediction) });
    });
    controls();
    make("p", { class: "elf-note" },
      "Green rings: the target. Blue: the prediction; drag it, or Tab and arrow keys. Arrows: forces, one scale for both. " +
      "Left: every particle is tied to its place. Right: springs between particles, red when stretched, dashed teal when squeezed.", body);
    state.say = voice(body);
    state.stiffen();
    paint.now();
  }

  function choice(bar, label, options, value, action) {
    const select = make("select", { "aria-label": label }, "", bar);
    for (const [key, text] of options) make("option", { value: key }, text, select);
    select.value = value;
    select.addEventListener("change", () => action(select.value, select));
    return select;
  }

  function controls() {
    const bar = make("div", { class: "elf-controls" }, "", body);
    button(bar, "Follow MSE", () => descend("mse"));
    button(bar, "Follow pair energy", () => descend("energy"));
    button(bar, "Mirror", () => { stop(); state.prediction = mirrored(state.prediction); changed(); act.done(false); });
    button(bar, "Start again", () => { stop(); state.prediction = state.begin.map((p) => [...p]); state.angle = 0; changed(); act.done(false); });
    choice(bar, "When a particle is let go", [["stay", "let go: stay"], ["mse", "let go: follow MSE"], ["energy", "let go: follow pair energy"]], state.release, (value) => { state.release = value; });
    const presets = model.get("presets") ?? [];
    if (presets.length > 1) {
      const present = presets.findIndex((preset) => JSON.stringify(preset.target) === JSON.stringify(state.target));
      const options = presets.map((preset, i) => [i, preset.name]);
      if (present < 0) options.unshift([-1, "your own"]);
      choice(bar, "Configuration", options, present, (value) => {
        if (Number(value) < 0) return;
        const preset = presets[Number(value)];
        state.loading = true; // target and prediction change together: draw once, when both are there
        if (state.springs.name === "custom") model.set("springs", { name: "constant", k: 1 });
        model.set("names", preset.names ?? []);
        model.set("target", preset.target);
        model.set("prediction", preset.prediction);
        try { model.save_changes(); } catch (error) { /* no kernel */ }
        state.loading = false;
        build();
        body.querySelector('select[aria-label="Configuration"]')?.focus();
      });
    }
    if (state.springs.name === "custom") return;
    const label = make("label", {}, "range ", null);
    const range = make("input", { type: "range", min: 0.2, max: 5, step: 0.1, "aria-label": "Range of the springs, in units of length" }, "", label);
    const number = make("span", { class: "elf-number" }, "", label);
    const spring = (settings) => {
      state.springs = { k: state.springs.k, length: state.springs.length ?? 1, name: state.springs.name, ...settings };
      number.textContent = state.springs.length.toFixed(1);
      label.style.display = state.springs.name === "exponential" ? "" : "none";
    };
    const tell = () => {
      state.loading = true;
      model.set("springs", { ...state.springs });
      state.given = JSON.stringify(state.springs);
      state.loading = false;
      state.stiffen();
      changed();
    };
    const names = { constant: "constant springs", inverse: "springs 1/r", inverse_square: "springs 1/r²", exponential: "springs exp(−r/range)" };
    choice(bar, "Springs", Object.entries(names), state.springs.name, (value) => { spring({ name: value }); tell(); act.done(false); });
    bar.appendChild(label);
    spring({});
    range.value = state.springs.length;
    range.addEventListener("input", () => { spring({ length: Number(range.value) }); tell(); });
    range.addEventListener("change", () => act.done(false));
  }

  const outside = () => {
    const same = (name, mine) => JSON.stringify(model.get(name)) === mine;
    const known = same("prediction", JSON.stringify(state.prediction)) && same("target", JSON.stringify(state.target)) && same("springs", state.given);
    if (!known && !state.loading && !state.dragging && !state.frame && !out.pending()) build();
  };
  const traits = ["target", "prediction", "springs"];
  for (const name of traits) model.on(`change:${name}`, outside);
  build();
  return () => { stop(); out.end(); paint?.end(); for (const name of traits) model.off(`change:${name}`, outside); };
}

export const mount = mounter(render);
export default widget(render);
