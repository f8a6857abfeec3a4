import { make, put, button, mounter, widget } from "./dom.js";
import { plane, panel, carry, keys, handle, motion, stage } from "./stage.js";
// Two particles on a line: a click chooses where both begin, and each energy's landscape shows where they go.
// The formulas are those of elf.Harmonic and elf.PairEnergy with k = 1, in double precision; the tests compare them.

/** Minus the gradient of each energy: the force on either particle. */
export function forces(kind, [a, b], [p, q]) {
  if (kind === "mse") return [2 * (p - a), 2 * (q - b)];
  const pull = 2 * (Math.abs(b - a) - Math.abs(q - p)) * Math.sign(b - a);
  return [pull, -pull];
}

/** Plain gradient descent, as elf.viz.fields.descent_path does it. */
export function descent(kind, start, target, steps = 150, rate = 0.05) {
  const path = [start];
  for (let step = 0; step < steps; step++) {
    const at = path[step], force = forces(kind, at, target);
    path.push(at.map((x, i) => x + rate * force[i]));
  }
  return path;
}

const pair = (value) => Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);

/** What is wrong with the state, or "". */
export function problem({ target, start, half, levels }) {
  if (!pair(target) || !pair(start)) return "target and start should be two finite numbers each";
  if (!(half > 0)) return "half should be above zero";
  const outlines = (list) => Array.isArray(list) && list.every((text) => typeof text === "string" && /^[MLZ\d. -]*$/.test(text));
  return levels && outlines(levels.mse) && outlines(levels.energy) ? "" : "levels should hold the outlines of both energies";
}

const KINDS = { mse: "MSE", energy: "Pair energy" };
const PLACE = (x) => x.toFixed(2).replace("-", "−");

function build(home, { target, start, half, levels }, { keep, say, painter }) {
  let at = [...start], shown = Infinity, paths = {};
  const panels = make("div", { class: "elf-panels" }, "", home);
  const sides = Object.entries(KINDS).map(([kind, title], index) => {
    const { figure, number } = panel(panels, title, kind), view = [-half, half, -half, half];
    const map = plane(figure, view, { role: "group", "aria-label": `Landscape of ${title}: click to begin a descent` });
    map.box.style.cursor = "crosshair";
    const tone = `var(--elf-${kind})`;
    for (const level of levels[kind]) {
      make("path", { d: level, transform: `translate(100 100) scale(${map.unit} ${-map.unit})`, fill: tone, "fill-opacity": 0.075, "fill-rule": "evenodd", stroke: tone, "stroke-width": 0.5 / map.unit, "stroke-opacity": 0.5 }, "", map.box);
    }
    const corner = { "font-size": 8 };
    make("text", { x: 100, y: 193, ...corner }, "particle 1 (Å)", map.box);
    put(make("text", { x: 8, y: 100, ...corner }, "particle 2 (Å)", map.box), { transform: "rotate(-90 8 100)" });
    const track = make("path", { fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linejoin": "round" }, "", map.box);
    const end = make("circle", { r: 4, fill: "currentColor" }, "", map.box);
    const dot = index ? make("circle", { r: 5, fill: "var(--elf-paper)", stroke: "currentColor", "stroke-width": 2 }, "", map.box) : handle(map.box, "currentColor", "");
    carry(map.box, map.world, (place, resting) => begin(place, resting));
    if (!index) keys(dot, half / 40, (by) => begin([at[0] + by[0], at[1] + by[1]], true));

    const line = plane(figure, [-half, half, -0.2 * half, 0.2 * half], { "aria-hidden": "true" });
    make("line", { x1: 0, x2: 200, y1: line.Y(0), y2: line.Y(0), stroke: "currentColor", "stroke-opacity": 0.3 }, "", line.box);
    for (const x of target) make("circle", { cx: line.X(x), cy: line.Y(0), r: 8.5, fill: "none", stroke: "var(--elf-target)", "stroke-width": 2 }, "", line.box);
    const beads = [1, 2].map((name) => {
      const bead = make("g", {}, "", line.box);
      make("circle", { r: 6.5, fill: "var(--elf-prediction)" }, "", bead);
      put(make("text", { "font-size": 8, "font-weight": 700 }, String(name), bead), { class: "elf-bead" });
      return bead;
    });
    return { kind, number, draw: () => {
      const path = paths[kind], now = Math.min(Math.floor(shown), path.length - 1);
      put(track, { d: map.route(path.slice(0, now + 1)) });
      put(end, { cx: map.X(path[now][0]), cy: map.Y(path[now][1]) });
      put(dot, index ? { cx: map.X(at[0]), cy: map.Y(at[1]) } : { transform: `translate(${map.X(at[0])} ${map.Y(at[1])})`, "aria-label": `Start: particle 1 at ${PLACE(at[0])}, particle 2 at ${PLACE(at[1])}. Move it with the arrow keys.` });
      beads.forEach((bead, i) => put(bead, { transform: `translate(${line.X(path[now][i])} ${line.Y(0)})` }));
      number.textContent = `at (${path[now].map(PLACE).join(", ")})`;
    } };
  });

  const draw = painter(() => {
    for (const side of sides) side.draw();
    home.dataset.elfEnds = JSON.stringify(sides.map(({ kind }) => paths[kind].at(-1)));
  });
  const rest = () => {
    shown = Infinity;
    draw.now();
    say(sides.map(({ kind }) => `${KINDS[kind]} ends at ${paths[kind].at(-1).map(PLACE).join(" and ")}`).join("; "));
  };
  const run = motion(home, (ms) => {
    shown += ms / 10;
    if (shown >= paths.mse.length) { rest(); return false; }
    draw.ask();
    return true;
  }, rest);
  function begin(place, resting) {
    run.stop();
    at = place.map((x) => Math.min(half, Math.max(-half, x)));
    for (const kind in KINDS) paths[kind] = descent(kind, at, target);
    shown = resting ? 0 : Infinity;
    draw.ask();
    if (resting) { keep("start", at); run.start(); }
  }
  begin(at, false);
  const bar = make("div", { class: "elf-controls" }, "", home);
  button(bar, "Descend again", () => begin(at, true));
  button(bar, "Swapped", () => begin([target[1], target[0]], true));
  button(bar, "Both at one place", () => begin([0.8, 0.8], true));
  make("p", { class: "elf-note" }, "A point of the picture is a configuration of both particles: below it they stand on their line, with their targets in green. Click or drag anywhere; by keyboard, Tab to the hollow dot and use the arrow keys.", home);
  draw.now();
  return () => { run.stop(); draw.end(); };
}

const render = stage("descent", { label: "Two landscapes to descend", traits: ["target", "start", "half", "levels"], problem, build, styles: ".elf-descent .elf-bead { fill: #00182e; }" });
export const mount = mounter(render);
export default widget(render);
