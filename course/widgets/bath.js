import { make, put, button, random, mounter, widget } from "./dom.js";
import { plane, panel, slider, motion, stage } from "./stage.js";
// A heat bath to look into: particles slide downhill and are kicked, until they are spread as Boltzmann has it.
// The steps are those of course.boltzmann.langevin, one particle at a time; the tests compare what they lead to.

export const BOND = 1.5; // angstrom
export const GRADIENTS = {
  mse: ([x, y]) => [2 * (x - BOND), 2 * y],
  energy: ([x, y]) => { const r = Math.hypot(x, y), pull = r ? (2 * (r - BOND)) / r : 0; return [pull * x, pull * y]; },
  well: ([y]) => [4 * y * (y * y - 1)],
};
export const well = (y) => (y * y - 1) ** 2;

/** Normal deviates from uniform ones. */
export const normal = (uniform) => () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

/** Euler-Maruyama: y - h grad E + sqrt(2 T h) xi. */
export function heated(kind, points, T, h, noise) {
  const kick = Math.sqrt(2 * T * h), slope = GRADIENTS[kind];
  return points.map((at) => { const down = slope(at); return at.map((x, i) => x - h * down[i] + kick * noise()); });
}

const EDGE = 2.2, BINS = 44, WIDTH = (2 * EDGE) / BINS;

/** Boltzmann's density in the double well at the middle of each bin, normalised on the bins. */
export function boltzmann(T) {
  const weights = Array.from({ length: BINS }, (_, i) => Math.exp(-well(-EDGE + (i + 0.5) * WIDTH) / T));
  const sum = weights.reduce((a, b) => a + b, 0) * WIDTH;
  return weights.map((weight) => weight / sum);
}

/** What is wrong with the state, or "". */
export function problem({ world, temperature, step, count }) {
  if (world !== "bond" && world !== "well") return "world should be bond or well";
  if (!(temperature > 0) || !(step > 0)) return "temperature and step should be above zero";
  return count >= 1 && count <= 5000 ? "" : "count should be 1 to 5000";
}

const spread = (values) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length)];
};
const dots = (map, points) => points.map(([x, y]) => `M${map.X(x).toFixed(1)} ${map.Y(y).toFixed(1)}h0`).join("");
const cloud = (box, tone, width) => make("path", { fill: "none", stroke: `var(--elf-${tone})`, "stroke-width": width, "stroke-linecap": "round", "stroke-opacity": 0.7 }, "", box);

/** A bond with one end pinned: the other under one of the two energies. */
function bond(panels, kind, title) {
  const { figure, number } = panel(panels, title, kind), map = plane(figure, [-2.6, 2.6, -2.6, 2.6], { role: "img" });
  const rims = [0, 1].map(() => make("circle", { fill: "none", stroke: "currentColor", "stroke-opacity": 0.55, "stroke-dasharray": "3 3" }, "", map.box));
  const points = cloud(map.box, kind, 3.2);
  make("circle", { cx: map.X(0), cy: map.Y(0), r: 4, fill: "currentColor" }, "", map.box);
  make("circle", { cx: map.X(BOND), cy: map.Y(0), r: 6, fill: "none", stroke: "var(--elf-target)", "stroke-width": 2.5 }, "", map.box);
  const mean = make("path", { stroke: "currentColor", "stroke-width": 2.2, fill: "none" }, "", map.box);
  return { kind, from: [BOND, 0], draw: (all, T) => {
    // 90 % of a Gaussian with T = 2 sigma^2: within sqrt(T ln 10) in the plane, within 1.645 sigma on a line.
    const radii = kind === "mse" ? [Math.sqrt(T * Math.log(10)), 0] : [1, -1].map((side) => Math.max(0, BOND + side * 1.645 * Math.sqrt(T / 2)));
    rims.forEach((rim, i) => put(rim, { cx: map.X(kind === "mse" ? BOND : 0), cy: map.Y(0), r: radii[i] * map.unit }));
    put(points, { d: dots(map, all) });
    const [x, y] = [0, 1].map((axis) => spread(all.map((at) => at[axis]))[0]);
    put(mean, { d: `M${map.X(x) - 5} ${map.Y(y)}h10M${map.X(x)} ${map.Y(y) - 5}v10` });
    const [length, wide] = spread(all.map((at) => Math.hypot(...at)));
    number.textContent = `length ${length.toFixed(2)} ± ${wide.toFixed(2)} Å`;
    put(map.box, { "aria-label": `${title}: ${number.textContent}; the mean place is at ${x.toFixed(1)}, ${y.toFixed(1)}` });
    return { length, wide, x, y };
  } };
}

/** Particles in a double well, and beside it how they are spread. */
function wells(panels) {
  const left = panel(panels, "In the well"), right = panel(panels, "Histogram");
  const map = plane(left.figure, [-EDGE, EDGE, -0.3, 4], { role: "img" }, 170), graph = plane(right.figure, [-EDGE, EDGE, -0.1, 1.6], { role: "img" }, 170);
  const curve = Array.from({ length: 89 }, (_, i) => -EDGE + i * 0.05);
  make("path", { d: map.route(curve.map((y) => [y, well(y)])), fill: "none", stroke: "var(--elf-energy)", "stroke-width": 2 }, "", map.box);
  const points = cloud(map.box, "prediction", 3.5), bars = make("path", { fill: "var(--elf-prediction)", "fill-opacity": 0.55 }, "", graph.box);
  const exact = make("path", { fill: "none", stroke: "var(--elf-target)", "stroke-width": 2 }, "", graph.box);
  return { kind: "well", from: [-1], draw: (all, T) => {
    const here = all.map(([y]) => y).filter((y) => Math.abs(y) < 4), lost = all.length - here.length; // NaN counts as lost
    put(points, { d: dots(map, here.map((y, i) => [y, well(y) + 0.12 + 0.12 * (i % 5)])) });
    const counts = new Array(BINS).fill(0);
    for (const y of here) { const bin = Math.floor((y + EDGE) / WIDTH); if (bin >= 0 && bin < BINS) counts[bin] += 1 / (all.length * WIDTH); }
    put(bars, { d: counts.map((height, i) => `M${graph.X(-EDGE + i * WIDTH)} ${graph.Y(0)}V${graph.Y(height)}h${WIDTH * graph.unit * 0.9}V${graph.Y(0)}Z`).join("") });
    put(exact, { d: graph.route(boltzmann(T).map((p, i) => [-EDGE + (i + 0.5) * WIDTH, p])) });
    const across = here.filter((y) => y > 0).length / all.length, hot = spread(here.map(well))[0] / T;
    const meant = boltzmann(T).reduce((sum, p, i) => sum + p * WIDTH * well(-EDGE + (i + 0.5) * WIDTH), 0) / T;
    left.number.textContent = `${Math.round(100 * across)} % right${lost ? `, ${lost} ran away` : ""}`;
    right.number.textContent = `energy ${hot.toFixed(2)} T (exact ${meant.toFixed(2)} T)`;
    put(map.box, { "aria-label": `Double well: ${left.number.textContent}` });
    put(graph.box, { "aria-label": `Histogram, with Boltzmann's density as a line: ${right.number.textContent}` });
    return { across, hot, meant };
  } };
}

const NOTES = {
  bond: "Black: the pinned atom. Green: the datum, where all dots begin. Dashed: where 90 % should be. Cross: the mean of all dots.",
  well: "All begin on the left. Green: the Boltzmann density of the temperature. A longer step is quicker, and hotter than the bath it claims to be.",
};

function build(home, state, { keep, say, painter }) {
  const panels = make("div", { class: "elf-panels" }, "", home), { world } = state;
  const views = world === "bond" ? [bond(panels, "mse", "MSE: a place"), bond(panels, "energy", "Pair energy: a length")] : [wells(panels)];
  let T = state.temperature, h = state.step, time = 0, clouds, noise;
  const draw = painter(() => {
    home.dataset.elfFound = JSON.stringify(views.map((view, i) => view.draw(clouds[i], T)));
    clock.textContent = `time ${time.toFixed(0)}`;
  });
  const advance = (steps) => {
    for (let i = 0; i < steps; i++) clouds = clouds.map((points, v) => heated(views[v].kind, points, T, h, noise));
    time += steps * h;
  };
  const told = () => { draw.now(); say([...home.querySelectorAll("[role=img]")].map((box) => box.getAttribute("aria-label")).join(". ")); };
  const run = motion(home, (ms) => { advance(Math.max(1, Math.round(ms / 6))); draw.ask(); }, () => { advance(500); told(); });
  const bar = make("div", { class: "elf-controls" }, "", home);
  const label = () => { heat.textContent = run.running() ? "Pause" : "Heat"; };
  const heat = button(bar, "Heat", () => { if (run.running()) { run.stop(); told(); } else run.start(); label(); });
  const reset = () => {
    run.stop();
    noise = normal(random(state.seed));
    time = 0;
    clouds = views.map(({ from }) => Array.from({ length: state.count }, () => [...from]));
    label();
  };
  button(bar, "Start again", () => { reset(); told(); });
  const clock = make("span", { class: "elf-number" }, "", bar);
  slider(bar, { name: "temperature", min: 0.02, max: world === "bond" ? 0.5 : 1, step: 0.02, value: T, say: (x) => x.toFixed(2) }, (value, resting) => {
    T = value;
    draw.ask();
    if (resting) { keep("temperature", T); if (!run.running()) told(); }
  });
  if (world === "well") {
    slider(bar, { name: "step", min: 0.005, max: 0.1, step: 0.005, value: h, say: (x) => x.toFixed(3) }, (value, resting) => {
      h = value;
      if (resting) { keep("step", h); if (!run.running()) { advance(100); told(); } }
    });
  }
  make("p", { class: "elf-note" }, NOTES[world], home);
  reset();
  advance(20);
  draw.now();
  return () => { run.stop(); draw.end(); };
}

const render = stage("bath", { label: "A heat bath", traits: ["world", "temperature", "step", "count", "seed"], problem, build });
export const mount = mounter(render);
export default widget(render);
