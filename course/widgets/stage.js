import { make, put, calm, root, fail, voice, painter } from "./dom.js";
// The base of the small figures: a plane to draw on, sliders, movable points, motion, and what all of them owe to their readers.

const STAGE = `
.elf-stage { max-width: 46rem; }
.elf-stage .elf-panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 0.75rem; align-items: start; }
.elf-stage .elf-caption { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0.1rem 0.6rem; min-height: 1.6rem; }
.elf-stage .elf-caption > :first-child { font-weight: 600; }
.elf-stage svg { border-radius: 8px; overflow: hidden; user-select: none; touch-action: manipulation; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.elf-stage svg + svg { margin-top: 0.35rem; }
.elf-stage .elf-movable { cursor: grab; outline: none; touch-action: none; }
.elf-stage .elf-halo { fill: transparent; stroke: transparent; stroke-width: 1.5; }
.elf-stage .elf-movable:focus-visible .elf-halo { stroke: currentColor; }
`;

const WIDE = 200; // units of the page that a plane is wide: words of 8 are as tall as the text around them

/**
 * A part of the plane, y upwards, as an SVG: `view` is [left, right, bottom, top]. X and Y lead to the page, `world` back.
 * One unit is as long in both directions, unless `high` says how high the picture is.
 */
export function plane(parent, view, attributes = {}, high = 0) {
  const [left, right, bottom, top] = view, unit = WIDE / (right - left), tall = high || (top - bottom) * unit;
  const box = make("svg", { viewBox: `0 0 ${WIDE} ${tall}`, ...attributes }, "", parent);
  const X = (x) => (x - left) * unit, Y = (y) => ((top - y) * tall) / (top - bottom);
  const world = (event) => {
    const rect = box.getBoundingClientRect();
    return [left + ((event.clientX - rect.left) * (right - left)) / rect.width, top - ((event.clientY - rect.top) * (top - bottom)) / rect.height];
  };
  const route = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
  return { box, unit, X, Y, world, route };
}

/** A panel with its title, and at the right a number that the figure keeps up to date. */
export function panel(parent, title, tone) {
  const figure = make("div", {}, "", parent), caption = make("div", { class: "elf-caption" }, "", figure);
  const name = make("span", {}, title, caption);
  name.style.color = tone ? `var(--elf-${tone}-text, var(--elf-${tone}))` : "";
  return { figure, number: make("span", { class: "elf-number" }, "", caption) };
}

/** A slider with its name, and what it stands at in words; `moved(value, resting)` hears of every change. */
export function slider(bar, { name, min, max, step, value, say = String }, moved) {
  const label = make("label", { class: "elf-grow" }, "", bar);
  make("span", {}, name, label);
  const input = make("input", { type: "range", min, max, step }, "", label);
  const words = make("span", { class: "elf-number" }, "", label);
  const show = () => {
    words.textContent = say(Number(input.value));
    put(input, { "aria-valuetext": words.textContent });
  };
  input.value = value;
  input.addEventListener("input", () => { show(); moved(Number(input.value), false); });
  input.addEventListener("change", () => moved(Number(input.value), true));
  input.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab has other uses for arrow keys
  show();
  return { set: (to) => { input.value = to; show(); }, get: () => Number(input.value) };
}

/** Lets a pointer carry `node` about on its plane: `moved(place, resting)` with the place in the plane's own units. */
export function carry(node, world, moved) {
  node.addEventListener("touchstart", (event) => { if (node.matches(".elf-movable")) event.preventDefault(); }, { passive: false });
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.setPointerCapture(event.pointerId);
    const on = (next) => moved(world(next), false);
    const end = (last) => {
      node.removeEventListener("pointermove", on);
      for (const name of ["pointerup", "pointercancel"]) node.removeEventListener(name, end);
      moved(world(last), true);
    };
    moved(world(event), false);
    node.addEventListener("pointermove", on);
    for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, end);
  });
}

/** Arrow keys move by `step`, ten times as far with Shift. */
export function keys(node, step, moved) {
  node.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    moved(by.map((part) => part * step * (event.shiftKey ? 10 : 1)));
  });
}

/** A point to take hold of: its dot in `color`, focusable, with a halo that shows the focus. */
export function handle(parent, color, name) {
  const node = make("g", { class: "elf-movable", tabindex: 0, role: "button", "aria-roledescription": "movable point", "aria-label": name }, "", parent);
  make("circle", { class: "elf-halo", r: 11 }, "", node);
  make("circle", { r: 5, fill: "var(--elf-paper)", stroke: color, "stroke-width": 2 }, "", node);
  return node;
}

/** Calls `tick(milliseconds)` every frame until it answers false; for who wants no motion, `jump` is called instead. */
export function motion(home, tick, jump) {
  let frame = 0, before = 0;
  const stop = () => { cancelAnimationFrame(frame); frame = 0; home.dataset.elfBusy = ""; };
  const step = (now) => {
    // A page that was hidden for a while goes on where it was.
    frame = tick(Math.min(50, Math.max(0, now - before))) === false ? 0 : requestAnimationFrame(step);
    before = now;
    if (!frame) stop();
  };
  const start = () => {
    stop();
    if (calm()) { jump(); return; }
    home.dataset.elfBusy = "motion";
    before = performance.now();
    frame = requestAnimationFrame(step);
  };
  return { start, stop, running: () => frame !== 0 };
}

/**
 * A widget's `render`. `build(home, state, { say, keep, painter })` draws it once from the traits named, and answers with
 * what ends it; it is built again when a trait changes from outside. `keep(name, value)` tells Python, where there is one.
 */
export function stage(kind, { label, traits, problem, build, styles = "" }) {
  return ({ model, el }) => {
    const home = root(el, kind, label, STAGE + styles);
    home.classList.add("elf-stage");
    const kept = {};
    let end = () => {};
    const keep = (name, value) => {
      kept[name] = JSON.stringify(value);
      model.set(name, value);
      try { model.save_changes(); } catch (error) { /* no kernel */ }
    };
    const start = () => {
      end();
      end = () => {};
      home.replaceChildren();
      const state = Object.fromEntries(traits.map((name) => [name, model.get(name)]));
      const wrong = problem(state);
      home.dataset.elfState = wrong ? "error" : "ready";
      if (wrong) fail(home, `This figure cannot be drawn: ${wrong}.`);
      else end = build(home, state, { keep, say: voice(home), painter: (draw) => painter(home, draw) }) ?? end;
    };
    const heard = traits.map((name) => [`change:${name}`, () => { if (JSON.stringify(model.get(name)) !== kept[name]) start(); }]);
    for (const [name, listener] of heard) model.on(name, listener);
    start();
    return () => { end(); for (const [name, listener] of heard) model.off(name, listener); };
  };
}
