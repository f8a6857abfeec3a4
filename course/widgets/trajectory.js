import { make, root, fail, player, painter, sender, mounter, widget } from "./dom.js";
// Molecules (or points) in motion: balls and sticks in an SVG that needs no WebGL, a slider through the frames,
// a drag that turns all of them together; optional target as green outlines, and forces as arrows.

const BOND_TOLERANCE = 0.4; // angstrom beyond the two covalent radii, as elf.viz.molecules.bonds

/** Pairs i < j closer than the sum of their covalent radii plus the tolerance; none between particles without radius. */
export function bonds(points, radii) {
  const pairs = [];
  for (let i = 0; i < points.length; i++)
    for (let j = i + 1; j < points.length; j++) {
      const gap = Math.hypot(...points[i].map((x, a) => x - points[j][a]));
      if (radii[i] && radii[j] && gap < radii[i] + radii[j] + BOND_TOLERANCE) pairs.push([i, j]);
    }
  return pairs;
}

/** What is wrong with the state, or "". */
export function problem({ molecules, elements }) {
  if (!Array.isArray(molecules) || molecules.length < 1) return "molecules should be one or more";
  const triple = (p) => Array.isArray(p) && p.length === 3 && p.every(Number.isFinite);
  const among = (i, atoms) => Number.isInteger(i) && i >= 0 && i < atoms;
  const count = molecules[0].frames?.length;
  for (const { frames, kinds, target, forces, edges } of molecules) {
    if (!Array.isArray(frames) || frames.length < 1 || frames.length !== count) return "each molecule should have the same number of frames, one or more";
    const atoms = frames[0].length;
    if (atoms < 1 || atoms > 500) return `a molecule has ${atoms} atoms; it should have 1 to 500`;
    const fits = (value) => Array.isArray(value) && value.length === atoms && value.every(triple);
    if (!frames.every(fits)) return "each frame should have three finite coordinates for each atom";
    if (target && !fits(target)) return "target should have three finite coordinates for each atom";
    if (forces && !(forces.length === count && forces.every(fits))) return "forces should have three finite numbers for each atom and frame";
    if (edges && !edges.every(([i, j]) => among(i, atoms) && among(j, atoms))) return "edges should be pairs of atoms";
    const table = Array.isArray(kinds?.[0]) ? kinds : [kinds];
    if ((table.length !== 1 && table.length !== count) || !table.every((row) => row?.length === atoms && row.every((kind) => elements[kind]))) return "kinds should name an element for each atom";
  }
  return "";
}

const STYLES = `
.elf-trajectory { max-width: 52rem; }
.elf-trajectory .elf-row { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.6rem; }
.elf-trajectory .elf-view { max-width: 24rem; }
.elf-trajectory .elf-caption { font-weight: 600; }
.elf-trajectory svg { aspect-ratio: 1; border-radius: 8px; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); cursor: grab; touch-action: pan-y; user-select: none; }
.elf-trajectory svg:active { cursor: grabbing; }
.elf-trajectory svg:focus-visible { outline: 2px solid currentColor; outline-offset: 1px; }
.elf-trajectory .elf-stick { stroke: #8a8f98; stroke-width: 5; stroke-linecap: round; }
.elf-trajectory .elf-ball { stroke: var(--elf-ink); stroke-width: 0.8; }
.elf-trajectory .elf-target { fill: none; stroke: var(--elf-target); stroke-width: 1.6; }
.elf-trajectory .elf-arrow { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
.elf-trajectory .elf-chip { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 50%; border: 1px solid currentColor; margin-right: 0.3em; vertical-align: -0.05em; }
.elf-trajectory .elf-note { white-space: pre-wrap; }
.elf-trajectory .elf-under { fill: none; stroke: var(--elf-paper); stroke-width: 5; stroke-linejoin: round; stroke-linecap: round; }
.elf-trajectory .elf-scale { stroke: currentColor; stroke-width: 1.5; }
`;

const multiply = (A, B) => A.map((row) => [0, 1, 2].map((j) => row[0] * B[0][j] + row[1] * B[1][j] + row[2] * B[2][j]));
const turnX = (a) => [[1, 0, 0], [0, Math.cos(a), -Math.sin(a)], [0, Math.sin(a), Math.cos(a)]];
const turnY = (a) => [[Math.cos(a), 0, Math.sin(a)], [0, 1, 0], [-Math.sin(a), 0, Math.cos(a)]];
const nice = (value) => { const p = 10 ** Math.floor(Math.log10(value)); return [5, 2, 1].find((s) => s * p <= value) * p; };
const far = (points) => Math.max(0, ...points.map((p) => Math.hypot(...p)));
let count = 0;

function view(parent, molecule, state) {
  const figure = make("div", { class: "elf-view" }, "", parent);
  if (molecule.title) make("div", { class: "elf-caption" }, molecule.title, figure);
  const box = make("svg", { viewBox: "-100 -100 200 200", tabindex: 0, role: "group", "aria-roledescription": "molecule to turn", "aria-label": `${molecule.title ? `${molecule.title}. ` : ""}${state.alt} Turn it with the arrow keys.` }, "", figure);
  const defs = make("defs", {}, "", box), scene = make("g", { "aria-hidden": "true" }, "", box), id = `elf-ball-${count++}`;
  for (const [kind, { color }] of Object.entries(state.elements)) {
    const shade = make("radialGradient", { id: `${id}-${kind}`, cx: 0.35, cy: 0.3, r: 0.75 }, "", defs);
    make("stop", { offset: 0, "stop-color": `color-mix(in srgb, ${color} 55%, white)` }, "", shade);
    make("stop", { offset: 0.55, "stop-color": color }, "", shade);
    make("stop", { offset: 1, "stop-color": `color-mix(in srgb, ${color} 72%, black)` }, "", shade);
  }
  let last = null;
  const drag = (event) => {
    state.turn = multiply(multiply(turnX((event.clientY - last[1]) / 90), turnY((event.clientX - last[0]) / 90)), state.turn);
    last = [event.clientX, event.clientY];
    state.changed();
  };
  box.addEventListener("pointerdown", (event) => {
    last = [event.clientX, event.clientY];
    box.setPointerCapture(event.pointerId);
    box.addEventListener("pointermove", drag);
    for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, () => box.removeEventListener("pointermove", drag), { once: true });
  });
  box.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: turnY(-0.15), ArrowRight: turnY(0.15), ArrowUp: turnX(-0.15), ArrowDown: turnX(0.15) }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    state.turn = multiply(by, state.turn);
    state.changed();
  });

  return (frame, reach) => {
    const unit = 88 / reach, R = state.turn;
    const place = (p) => { const [x, y, z] = R.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]); return [x * unit, -y * unit, z]; };
    const points = molecule.frames[frame], kinds = Array.isArray(molecule.kinds[0]) ? molecule.kinds[frame] : molecule.kinds;
    const flat = points.map(place), elements = kinds.map((kind) => state.elements[kind]);
    const size = (element) => Math.min(9, (0.2 + 0.28 * (element.radius ?? 0.6)) * unit);
    const parts = [];
    if (molecule.target) {
      const goal = molecule.target.map(place);
      for (const [i, j] of bonds(molecule.target, elements.map((e) => e.radius))) parts.push([-1e6, "line", { class: "elf-target", x1: goal[i][0], y1: goal[i][1], x2: goal[j][0], y2: goal[j][1] }]);
      goal.forEach((p, i) => parts.push([-1e6, "circle", { class: "elf-target", cx: p[0], cy: p[1], r: size(elements[i]) + 1.5 }]));
    }
    for (const [i, j] of molecule.edges ?? bonds(points, elements.map((e) => e.radius)))
      parts.push([Math.min(flat[i][2], flat[j][2]) - 1e-3, "line", { class: "elf-stick", x1: flat[i][0], y1: flat[i][1], x2: flat[j][0], y2: flat[j][1] }]);
    flat.forEach((p, i) => parts.push([p[2], "circle", { class: "elf-ball", cx: p[0], cy: p[1], r: size(elements[i]), fill: `url(#${id}-${kinds[i]})` }]));
    molecule.forces?.[frame].forEach((force, i) => {
      const tip = place(points[i].map((x, a) => x + state.scale * force[a])), [x, y] = flat[i];
      const dx = tip[0] - x, dy = tip[1] - y, length = Math.hypot(dx, dy);
      if (length < 2) return;
      const ux = dx / length, uy = dy / length, h = Math.min(6, 0.5 * length);
      const head = `M${tip[0] - h * ux - h * 0.5 * uy} ${tip[1] - h * uy + h * 0.5 * ux}L${tip[0]} ${tip[1]}L${tip[0] - h * ux + h * 0.5 * uy} ${tip[1] - h * uy - h * 0.5 * ux}`;
      const d = `M${x} ${y}L${tip[0]} ${tip[1]}${head}`;
      parts.push([1e6, "path", { class: "elf-under", d }], [1e6, "path", { class: "elf-arrow", d, stroke: `var(--elf-${molecule.tone ?? "energy"})` }]);
    });
    parts.sort((a, b) => a[0] - b[0]);
    const bar = nice(reach * 0.5);
    const nodes = parts.map(([, tag, attributes]) => make(tag, attributes));
    nodes.push(make("line", { class: "elf-scale", x1: -90, x2: -90 + bar * unit, y1: 90, y2: 90 }), make("text", { x: -90 + (bar * unit) / 2, y: 83, "font-size": 7.5 }, `${bar} ${state.unit}`));
    scene.replaceChildren(...nodes);
  };
}

function render({ model, el }) {
  const home = root(el, "trajectory", model.get("alt") || "Molecules in motion", STYLES);
  const out = sender(model, "frame", () => Number(home.dataset.elfFrame));
  let shown = null, paint = null;
  const build = () => {
    shown?.stop();
    home.replaceChildren();
    const state = Object.fromEntries(["molecules", "elements", "labels", "name", "fps", "frame", "alt", "scale", "unit"].map((name) => [name, model.get(name)]));
    const wrong = problem(state);
    home.dataset.elfState = wrong ? "error" : "ready";
    if (wrong) { fail(home, `The molecules cannot be drawn: ${wrong}.`); shown = null; return; }
    state.turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    const total = state.molecules[0].frames.length, row = make("div", { class: "elf-row" }, "", home);
    state.changed = () => paint?.ask();
    const views = state.molecules.map((molecule) => view(row, molecule, state));
    // One scale for all molecules of a frame: noise is wide and shrinks; what is smaller than the widest end is not blown up.
    const least = Math.max(0.8, ...state.molecules.map(({ frames, target }) => Math.max(far(frames.at(-1)), target ? far(target) : 0)));
    const reach = Array.from({ length: total }, (_, i) => 0.5 + Math.max(least, ...state.molecules.map(({ frames }) => far(frames[i]))));
    paint = painter(home, () => { const i = Number(home.dataset.elfFrame); for (const draw of views) draw(i, reach[i]); });
    shown = player(home, home, { ...state, labels: state.labels ?? [], count: total, start: Math.min(Math.max(0, state.frame ?? 0), total - 1) }, () => paint.ask(), () => out.flush());
    paint.now();
    const present = [...new Set(state.molecules.flatMap(({ kinds }) => kinds.flat()))].map((kind) => state.elements[kind]).filter((element) => element.name);
    const note = make("p", { class: "elf-note" }, "", home);
    for (const { name, color } of present) {
      make("span", { class: "elf-chip" }, "", note).style.backgroundColor = color;
      make("span", {}, `${name}  `, note);
    }
    make("span", {}, "Drag to turn, or Tab and arrow keys.", note);
  };
  const moved = () => { const frame = model.get("frame"); if (shown && String(frame) !== home.dataset.elfFrame) shown.go(frame); };
  model.on("change:molecules", build);
  model.on("change:frame", moved);
  build();
  return () => { shown?.stop(); paint?.end(); out.end(); model.off("change:molecules", build); model.off("change:frame", moved); };
}

export const mount = mounter(render);
export default widget(render);
