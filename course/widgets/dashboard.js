import { make, put, root, fail, voice, button, mounter, widget } from "./dom.js";
// The training dashboard: loss, metrics, samples and time left of a run, as its callback sends them; a stop button.

/** What is wrong with the state, or "". */
export function problem({ curve, metrics, samples }) {
  const numbers = (list) => Array.isArray(list) && list.every(Number.isFinite);
  if (!curve || !numbers(curve.steps) || !numbers(curve.losses) || curve.steps.length !== curve.losses.length) return "curve should hold steps and losses, finite and equally many";
  if (!Array.isArray(metrics) || !metrics.every(({ name, text }) => typeof name === "string" && typeof text === "string")) return "metrics should be names and texts";
  const drawn = ({ reach, lines, dots, cells }) => reach > 0 && (cells ? cells.every(numbers) : lines.every(numbers) && dots.every(([x, y, r]) => numbers([x, y, r])));
  return Array.isArray(samples) && samples.every(drawn) ? "" : "samples should be drawings with finite coordinates";
}

const STYLES = `
.elf-dashboard { max-width: 46rem; }
.elf-dashboard .elf-head { display: flex; flex-wrap: wrap; gap: 0.3rem 0.9rem; align-items: center; }
.elf-dashboard .elf-title { font-weight: 600; }
.elf-dashboard .elf-bar { height: 6px; border-radius: 3px; background: color-mix(in srgb, currentColor 15%, transparent); margin: 0.4rem 0; }
.elf-dashboard .elf-bar > div { height: 100%; border-radius: 3px; background: var(--elf-prediction); }
.elf-dashboard .elf-split { display: grid; grid-template-columns: minmax(0, 1.4fr) minmax(10rem, 1fr); gap: 1rem; align-items: start; }
@container (max-width: 30rem) { .elf-dashboard .elf-split { grid-template-columns: minmax(0, 1fr); } }
.elf-dashboard dl { display: grid; grid-template-columns: 1fr auto; gap: 0.15rem 0.8rem; margin: 0.3rem 0; }
.elf-dashboard dt, .elf-dashboard dd { margin: 0; font-weight: 400; }
.elf-dashboard dd { text-align: right; font-variant-numeric: tabular-nums; font-weight: 600; }
.elf-dashboard .elf-samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.2rem, 1fr)); gap: 0.4rem; }
.elf-dashboard .elf-samples svg { aspect-ratio: 1; border-radius: 6px; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.elf-dashboard .elf-curve line { stroke: currentColor; stroke-opacity: 0.3; }
.elf-dashboard .elf-curve text { font-size: 11px; }
.elf-dashboard .elf-curve .elf-end { text-anchor: end; }
`;

const W = 400, H = 210, LEFT = 52, BOTTOM = 34, TOP = 10, RIGHT = 12;
const tidy = (value) => (value === 0 ? "0" : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4 ? String(Number(value.toPrecision(3))) : value.toExponential(1));

/** Steps and losses as a curve with a few ticks; logarithmic where all losses are positive. */
function drawCurve(box, { steps, losses }, total, tone) {
  box.replaceChildren();
  if (!steps.length) return;
  const log = losses.every((loss) => loss > 0), f = log ? Math.log10 : (x) => x;
  const values = losses.map(f), low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const X = (step) => LEFT + ((W - LEFT - RIGHT) * step) / Math.max(total, 1);
  const Y = (value) => TOP + ((H - TOP - BOTTOM) * (high + 0.04 * span - value)) / (1.08 * span);
  const ticks = [high, (high + low) / 2, low];
  for (const tick of high === low ? [high] : ticks) {
    make("line", { x1: LEFT, x2: W - RIGHT, y1: Y(tick), y2: Y(tick) }, "", box);
    make("text", { class: "elf-end", x: LEFT - 6, y: Y(tick) }, tidy(log ? 10 ** tick : tick), box);
  }
  for (const step of [0, Math.round(total / 2)]) make("text", { x: X(step), y: H - BOTTOM + 12 }, String(step), box);
  make("text", { class: "elf-end", x: W, y: H - BOTTOM + 12 }, String(total), box);
  make("text", { x: (W + LEFT) / 2, y: H - 9 }, `step (loss, smoothed${log ? ", logarithmic" : ""})`, box);
  make("polyline", { points: steps.map((step, i) => `${X(step)},${Y(values[i])}`).join(" "), fill: "none", stroke: `var(--elf-${tone})`, "stroke-width": 2, "stroke-linejoin": "round" }, "", box);
  make("circle", { cx: X(steps.at(-1)), cy: Y(values.at(-1)), r: 3, fill: `var(--elf-${tone})` }, "", box);
}

const ink = (color) => (color.startsWith("#") ? color : `var(--elf-${color})`);

/** A small drawing: lines and dots in the plane, or the cells of a lattice (+1 filled). */
function drawSample(parent, { reach, lines, dots, cells }) {
  const box = make("svg", { viewBox: "-100 -100 200 200", "aria-hidden": "true" }, "", parent);
  if (cells) {
    const size = 190 / Math.max(cells.length, cells[0].length);
    cells.forEach((row, r) => row.forEach((value, c) => {
      if (value > 0) make("rect", { x: (c - row.length / 2) * size, y: (r - cells.length / 2) * size, width: size, height: size, fill: "currentColor" }, "", box);
    }));
    return;
  }
  const u = 88 / reach;
  for (const [x1, y1, x2, y2] of lines) make("line", { x1: x1 * u, y1: -y1 * u, x2: x2 * u, y2: -y2 * u, stroke: "#8a8f98", "stroke-width": 6, "stroke-linecap": "round" }, "", box);
  for (const [x, y, r, color] of dots) make("circle", { cx: x * u, cy: -y * u, r: Math.max(3, r * u), fill: ink(color), stroke: "currentColor", "stroke-width": 1.5 }, "", box);
}

function render({ model, el }) {
  const label = model.get("label") || "training";
  const home = root(el, "dashboard", `Training: ${label}`, STYLES);
  const head = make("div", { class: "elf-head" }, "", home);
  make("span", { class: "elf-title" }, label, head);
  const line = make("span", { class: "elf-number", "data-elf-line": "" }, "", head);
  let asked = 0;
  const stop = button(head, "Stop", () => {
    stop.disabled = true;
    stop.textContent = "Stopping …";
    model.set("asked", true);
    try { model.save_changes(); } catch (error) { /* no kernel */ }
    // A kernel without subshells reads messages only between cells; an interrupt reaches it, and ends the training as cleanly.
    asked = setTimeout(() => { if (model.get("phase") === "running") model.widget_manager?.kernel?.interrupt?.(); }, 1500);
  });
  const bar = make("div", { class: "elf-bar", role: "progressbar", "aria-label": `Progress of ${label}`, "aria-valuemin": 0 }, "", home);
  const done = make("div", {}, "", bar), split = make("div", { class: "elf-split" }, "", home);
  const curve = make("svg", { class: "elf-curve", viewBox: `0 0 ${W} ${H}`, role: "img" }, "", make("div", {}, "", split));
  const side = make("div", {}, "", split), list = make("dl", {}, "", side);
  const samples = make("div", { class: "elf-samples", role: "img" }, "", side);
  const say = voice(home);
  let error = null;

  const draw = () => {
    const state = Object.fromEntries(["line", "phase", "step", "steps", "curve", "metrics", "samples", "tone"].map((name) => [name, model.get(name)]));
    const wrong = problem(state);
    error?.remove();
    error = wrong ? fail(home, `The dashboard cannot draw this: ${wrong}.`) : null;
    home.dataset.elfState = wrong ? "error" : "ready";
    for (const part of [bar, split]) part.style.display = wrong ? "none" : "";
    if (wrong) return;
    line.textContent = state.line;
    done.style.width = `${(100 * state.step) / Math.max(state.steps, 1)}%`;
    put(bar, { "aria-valuenow": state.step, "aria-valuemax": state.steps });
    drawCurve(curve, state.curve, state.steps, state.tone);
    const last = state.curve.losses.at(-1);
    put(curve, { "aria-label": last === undefined ? "No loss yet" : `Loss over steps, now ${tidy(last)}` });
    list.replaceChildren();
    for (const { name, text } of state.metrics) { make("dt", {}, name, list); make("dd", {}, text, list); }
    samples.replaceChildren();
    put(samples, { "aria-label": `${state.samples.length} current samples` });
    samples.style.display = state.samples.length ? "" : "none";
    for (const sample of state.samples) drawSample(samples, sample);
    Object.assign(home.dataset, { elfStep: state.step, elfPhase: state.phase });
    stop.style.display = state.phase === "running" ? "" : "none";
    if (state.phase !== "running") { clearTimeout(asked); say(`Training ended. ${state.line}`); }
  };
  const names = ["line", "phase", "curve", "metrics", "samples"].map((name) => `change:${name}`);
  let frame = 0; // traits of one message change one by one: draw once
  const soon = () => { frame ||= requestAnimationFrame(() => { frame = 0; draw(); }); };
  for (const name of names) model.on(name, soon);
  draw();
  return () => { cancelAnimationFrame(frame); clearTimeout(asked); for (const name of names) model.off(name, soon); };
}

export const mount = mounter(render);
export default widget(render);
