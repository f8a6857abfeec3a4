// The playground: two energies of one configuration, side by side. No build step, no imports, no network.
// The formulas are those of elf.Harmonic and elf.PairEnergy with normalize="sum", in double precision; the tests compare them.

const R_MIN = 1e-2;

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
  if (!Array.isArray(points) || points.length < 1 || points.length > 64) return "needs 1 to 64 particles";
  if (count !== undefined && points.length !== count) return `has ${points.length} particles, the target has ${count}`;
  const good = (p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite);
  return points.every(good) ? "" : "needs two finite numbers for each particle";
}

const SVG = "http://www.w3.org/2000/svg";
function make(tag, attributes = {}, text = "", parent = null) {
  const svg = ["svg", "g", "circle", "line", "path", "text"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text; // text is only ever set as text, never as HTML
  if (parent) parent.appendChild(node);
  return node;
}
const put = (node, attributes) => { for (const name in attributes) node.setAttribute(name, attributes[name]); };
const short = (value) => (value === 0 ? "0" : value < 5e-7 ? "0.000" : value < 1000 ? value.toFixed(3) : value.toExponential(2));

const ARROW = 0.25; // page length of an arrow per unit of force, the same in both panels

/** One panel: an SVG that shows target, prediction, springs and forces, in the world's coordinates with y upwards. */
function panel(parent, kind, state, act) {
  const figure = make("figure", {}, "", parent);
  const caption = make("figcaption", {}, "", figure);
  make("span", {}, kind === "mse" ? "Squared error (MSE)" : "Pair energy", caption);
  const value = make("span", { class: "elf-value", style: `color: var(--elf-${kind})` }, "", caption);
  const meter = make("div", { style: `background: var(--elf-${kind})` }, "", make("div", { class: "elf-meter", "aria-hidden": "true" }, "", figure));
  // The right-hand panel moves with the pointer too, but is hidden from the keyboard: the same particles, one tab stop each.
  const first = kind === "mse";
  const box = make("svg", first ? { role: "group", "aria-label": "Particles to drag" } : { "aria-hidden": "true" }, "", figure);
  const layers = ["springs", "targets", "ring", "arrows", "particles"].map((name) => make("g", { class: `elf-${name}` }, "", box));
  const [springs, targets, ring, arrows, particles] = layers;
  const u = state.half / 100;
  put(box, { viewBox: [-100, -100, 200, 200].join(" ") });
  const X = (p) => (p[0] - state.centre[0]) / u, Y = (p) => -(p[1] - state.centre[1]) / u;
  const world = (event) => {
    const rect = box.getBoundingClientRect();
    const scale = (2 * state.half) / rect.width;
    return [state.centre[0] + (event.clientX - rect.left) * scale - state.half, state.centre[1] - (event.clientY - rect.top) * scale + state.half];
  };

  const n = state.target.length;
  const size = n > 16 ? 4 : n > 6 ? 5.5 : 7;
  const bondLines = [], trapLines = [], dots = [], arrowPaths = [];
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n && kind === "energy"; j++) bondLines.push(make("line", { "stroke-linecap": "round" }, "", springs));
    if (kind === "mse") trapLines.push(make("line", { stroke: "var(--elf-mse)", "stroke-width": 1.4, "stroke-dasharray": "3 3" }, "", springs));
    const ghost = make("g", {}, "", targets);
    make("circle", { cx: X(state.target[i]), cy: Y(state.target[i]), r: size + 1.5, fill: "none", stroke: "var(--elf-target)", "stroke-width": 1.6 }, "", ghost);
    if (n <= 16 && kind === "mse") make("text", { x: X(state.target[i]), y: Y(state.target[i]) - size - 5.5, "font-size": 6.5 }, String(i + 1), ghost);
    arrowPaths.push(make("path", { fill: `var(--elf-${kind})`, stroke: `var(--elf-${kind})`, "stroke-width": 1.8, "stroke-linejoin": "round", "pointer-events": "none" }, "", arrows));
    const dot = make("g", { class: "elf-movable" }, "", particles);
    make("circle", { class: "elf-halo", r: size + 5, "stroke-width": 1.5 }, "", dot);
    make("circle", { r: size, fill: "var(--elf-prediction)" }, "", dot);
    if (n <= 16) make("text", { "font-size": size + 1, style: "fill: #00182e" }, String(i + 1), dot);
    if (first) put(dot, { tabindex: 0, role: "button", "aria-roledescription": "movable particle" });
    grab(dot, (event) => act.move(i, world(event)), act);
    dot.addEventListener("keydown", (event) => {
      const step = state.half * (event.shiftKey ? 0.1 : 0.02);
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      act.move(i, [state.prediction[i][0] + by[0], state.prediction[i][1] + by[1]]);
      act.done();
    });
    dots.push(dot);
  }

  const circle = make("circle", { fill: "none", stroke: "currentColor", "stroke-opacity": 0.35, "stroke-dasharray": "1 4" }, "", ring);
  const knob = make("g", { class: "elf-movable" }, "", ring);
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
    act.done();
  });

  return (result, top) => {
    value.textContent = short(result.value);
    meter.style.width = `${Math.min(100, (100 * Math.sqrt(result.value)) / Math.sqrt(top))}%`;
    const p = state.prediction;
    p.forEach((point, i) => {
      put(dots[i], { transform: `translate(${X(point)} ${Y(point)})` });
      if (first) put(dots[i], { "aria-label": `Particle ${i + 1} at x ${point[0].toFixed(2)}, y ${point[1].toFixed(2)}. Move it with the arrow keys.` });
      put(arrowPaths[i], { d: arrowPath(X(point), Y(point), (result.forces[i][0] * ARROW) / u, (-result.forces[i][1] * ARROW) / u) });
      if (kind === "mse") put(trapLines[i], { x1: X(point), y1: Y(point), x2: X(state.target[i]), y2: Y(state.target[i]) });
    });
    (result.bonds ?? []).forEach(({ i, j, tension }, b) => {
      // Half of the strongest spring's constant, stretched by the picture's half width, is full colour.
      const strength = Math.min(1, Math.abs(tension) / state.fullTension);
      const tone = tension > 0 ? "var(--elf-stretched)" : "var(--elf-squeezed)";
      put(bondLines[b], {
        x1: X(p[i]), y1: Y(p[i]), x2: X(p[j]), y2: Y(p[j]),
        stroke: `color-mix(in srgb, ${tone} ${Math.round(100 * Math.sqrt(strength))}%, #8a8f98)`,
        "stroke-width": 1.2 + 3.3 * Math.sqrt(strength), "stroke-dasharray": tension < 0 && strength > 2e-3 ? "5 4" : "none",
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
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.focus?.({ preventScroll: true });
    node.setPointerCapture(event.pointerId);
    act.start();
    const end = () => { node.removeEventListener("pointermove", move); act.done(); };
    node.addEventListener("pointermove", move);
    node.addEventListener("pointerup", end, { once: true });
    node.addEventListener("pointercancel", end, { once: true });
  });
}

function render({ model, el }) {
  const root = make("div", { class: "elf-playground", role: "group", "aria-label": "Playground: two energies of one configuration" }, "", el);
  const body = make("div", {}, "", root);
  const state = { angle: 0, dragging: false, frame: 0, timer: 0 };
  let draw = () => {};

  const send = () => {
    clearTimeout(state.timer);
    state.timer = 0;
    model.set("prediction", state.prediction.map((p) => [...p]));
    // On a static page there is no kernel to hear it; the picture must not care.
    try { model.save_changes(); } catch (error) { /* no kernel */ }
  };
  const changed = () => { draw(); state.timer ||= setTimeout(send, 100); };
  const stop = () => { cancelAnimationFrame(state.frame); state.frame = 0; };
  const act = {
    start: () => { stop(); state.dragging = true; },
    move: (i, place) => { stop(); state.prediction[i] = place.map((x, a) => clamp(x, state.centre[a], 0.95 * state.half)); changed(); },
    turn: (angle) => { stop(); state.angle += angle; state.prediction = rotated(state.prediction, angle); changed(); },
    done: () => { state.dragging = false; send(); say(); },
  };
  const clamp = (x, middle, reach) => Math.min(middle + reach, Math.max(middle - reach, x));

  const say = () => {
    const { mse, energy } = evaluate();
    state.live.textContent = `Squared error ${short(mse.value)}, pair energy ${short(energy.value)}.`;
  };
  const evaluate = () => ({ mse: squaredError(state.prediction, state.target), energy: pairEnergy(state.prediction, state.target, state.k) });

  function descend(kind) {
    stop();
    const stiffest = Math.max(...state.k.map((row) => row.reduce((sum, k) => sum + k, 0)));
    const rate = kind === "mse" ? 0.03 : Math.min(0.15, 0.12 / Math.max(stiffest, 1e-9));
    const still = () => Math.max(...state.forces.map((f) => Math.hypot(...f))) < 1e-4 * state.half;
    const step = () => {
      state.forces = evaluate()[kind].forces;
      state.prediction = state.prediction.map((p, i) => p.map((x, a) => x + rate * state.forces[i][a]));
    };
    let left = 900;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      do step(); while (--left && !still());
      changed(); say();
      return;
    }
    const tick = () => {
      step(); step();
      changed();
      if ((left -= 2) > 0 && !still()) state.frame = requestAnimationFrame(tick);
      else { send(); say(); }
    };
    state.frame = requestAnimationFrame(tick);
  }

  function build() {
    stop();
    body.replaceChildren();
    const target = model.get("target"), prediction = model.get("prediction");
    const wrong = (problem(target) && `target ${problem(target)}`) || (problem(prediction, target.length) && `prediction ${problem(prediction, target.length)}`);
    if (wrong) { make("p", { class: "elf-error", role: "alert" }, `The playground cannot draw this: ${wrong}.`, body); draw = () => {}; return; }
    Object.assign(state, { target, prediction: prediction.map((p) => [...p]), begin: prediction.map((p) => [...p]), angle: 0 });
    state.springs = { ...model.get("springs") };
    state.centre = centroid(target);
    const reach = Math.max(...[...target, ...prediction].map((p) => distance(p, state.centre)), 1e-3);
    state.half = 1.75 * reach;

    const panels = make("div", { class: "elf-panels" }, "", body);
    const left = panel(panels, "mse", state, act), right = panel(panels, "energy", state, act);
    const stiffen = () => {
      state.k = constants(target, state.springs);
      state.fullTension = Math.max(...state.k.flat(), 1e-9) * 0.5 * state.half;
      // Full meters: every particle half a picture away from its place; every spring stretched by as much.
      state.top = [target.length * 0.25 * state.half ** 2, Math.max(state.k.flat().reduce((a, b) => a + b, 0) / 2, 1e-9) * 0.25 * state.half ** 2];
    };
    draw = () => { const { mse, energy } = evaluate(); left(mse, state.top[0]); right(energy, state.top[1]); };
    controls(stiffen);
    make("p", { class: "elf-note" },
      "Green rings: the target. Blue: the prediction; drag it, or Tab and arrow keys. Arrows: forces, one scale for both. " +
      "Left: every particle is tied to its place. Right: springs between particles, red when stretched, dashed teal when squeezed.", body);
    state.live = make("p", { class: "elf-sr", "aria-live": "polite" }, "", body);
    stiffen();
    draw();
  }

  function controls(stiffen) {
    const bar = make("div", { class: "elf-controls" }, "", body);
    const button = (text, action) => make("button", { type: "button" }, text, bar).addEventListener("click", action);
    button("Follow MSE", () => descend("mse"));
    button("Follow pair energy", () => descend("energy"));
    button("Mirror", () => { stop(); state.prediction = mirrored(state.prediction); changed(); act.done(); });
    button("Start again", () => { stop(); state.prediction = state.begin.map((p) => [...p]); state.angle = 0; changed(); act.done(); });
    const presets = model.get("presets") ?? [];
    if (presets.length > 1) {
      const select = make("select", { "aria-label": "Configuration" }, "", bar);
      presets.forEach((preset, i) => make("option", { value: i }, preset.name, select));
      select.value = String(Math.max(0, presets.findIndex((preset) => JSON.stringify(preset.target) === JSON.stringify(state.target))));
      select.addEventListener("change", () => {
        const preset = presets[Number(select.value)];
        const springs = state.springs.name === "custom" ? { name: "constant", k: 1 } : state.springs;
        state.loading = true; // target and prediction change together: draw once, when both are there
        model.set("springs", springs);
        model.set("target", preset.target);
        model.set("prediction", preset.prediction);
        try { model.save_changes(); } catch (error) { /* no kernel */ }
        state.loading = false;
        build();
        body.querySelector("select")?.focus();
      });
    }
    if (state.springs.name === "custom") return;
    const names = { constant: "constant springs", inverse: "springs 1/r", inverse_square: "springs 1/r²", exponential: "springs exp(−r)" };
    const select = make("select", { "aria-label": "Springs" }, "", bar);
    for (const [name, text] of Object.entries(names)) make("option", { value: name }, text, select);
    select.value = state.springs.name;
    select.addEventListener("change", () => {
      state.springs = { k: state.springs.k, length: state.springs.length ?? 1, name: select.value };
      model.set("springs", state.springs);
      stiffen();
      changed();
      act.done();
    });
  }

  const outside = () => {
    const same = JSON.stringify(model.get("prediction")) === JSON.stringify(state.prediction) && model.get("target") === state.target;
    if (!state.loading && !state.dragging && !state.frame && !state.timer && !same) build();
  };
  model.on("change:target", outside);
  model.on("change:prediction", outside);
  build();
  return () => { stop(); clearTimeout(state.timer); model.off("change:target", outside); model.off("change:prediction", outside); };
}

export default { render };
