import { make, put, short, calm, root, fail, voice, button, painter, sender, random, mounter, widget } from "./dom.js";
// The spin board: a square lattice of Ising spins with free boundaries, to flip by mouse, touch and keyboard.
// The formulas are those of elf.spins in double precision; the tests compare them.

const LARGEST_SIDE = 24;

/** E = -sum_<ij> J_ij y_i y_j over the bonds to the right and down. */
export function isingEnergy(spins, right, down) {
  let sum = 0;
  right.forEach((row, r) => row.forEach((J, c) => { sum -= J * spins[r][c] * spins[r][c + 1]; }));
  down.forEach((row, r) => row.forEach((J, c) => { sum -= J * spins[r][c] * spins[r + 1][c]; }));
  return sum;
}

/** h_i = sum_j J_ij y_j. */
export const localField = (spins, right, down, r, c) =>
  (c > 0 ? right[r][c - 1] * spins[r][c - 1] : 0) + (c < spins[r].length - 1 ? right[r][c] * spins[r][c + 1] : 0) +
  (r > 0 ? down[r - 1][c] * spins[r - 1][c] : 0) + (r < spins.length - 1 ? down[r][c] * spins[r + 1][c] : 0);

export const localFields = (spins, right, down) =>
  spins.map((row, r) => row.map((_, c) => localField(spins, right, down, r, c)));

/** Whether an odd number of the four bonds around each square is negative. */
export const frustrated = (right, down) =>
  down.map((row, r) => row.slice(0, -1).map((_, c) => (right[r][c] < 0) !== (right[r + 1][c] < 0) !== (down[r][c] < 0) !== (down[r][c + 1] < 0)));

/** q = mean_i s_i t_i, signed. */
export function overlap(spins, others) {
  let sum = 0, count = 0;
  spins.forEach((row, r) => row.forEach((s, c) => { sum += s * others[r][c]; count++; }));
  return sum / count;
}

const scale = (right, down) => Math.max(0, ...right.flat().map(Math.abs), ...down.flat().map(Math.abs));
const rms = (right, down) => {
  const all = [...right.flat(), ...down.flat()];
  return Math.sqrt(all.reduce((sum, J) => sum + J * J, 0) / Math.max(1, all.length)) || 1;
};

/** The site whose flip lowers the energy most, or null in a local minimum. */
export function steepest(spins, right, down) {
  let best = -1e-9 * (scale(right, down) || 1), where = null;
  spins.forEach((row, r) => row.forEach((s, c) => {
    const change = 2 * s * localField(spins, right, down, r, c);
    if (change < best) { best = change; where = [r, c]; }
  }));
  return where;
}

/** One Metropolis sweep at a temperature, in place. */
export function sweep(spins, right, down, temperature, draw) {
  spins.forEach((row, r) => row.forEach((s, c) => {
    const cost = 2 * s * localField(spins, right, down, r, c);
    if (cost <= 0 || draw() < Math.exp(-cost / temperature)) row[c] = -s;
  }));
}

const SWEEPS = 400, SWEEPS_A_FRAME = 5, HOT = 2.0, COLD = 0.1; // temperatures in units of the root mean square coupling, as elf.spins.anneal
const cooled = (step) => HOT * (COLD / HOT) ** (step / (SWEEPS - 1));

/** What is wrong with a board's state, or "". */
export function problem({ right, down, spins, ground }) {
  const table = (value, rows, columns) => Array.isArray(value) && value.length === rows && value.every((row) => Array.isArray(row) && row.length === columns && row.every(Number.isFinite));
  const height = Array.isArray(spins) ? spins.length : 0, width = Array.isArray(spins?.[0]) ? spins[0].length : 0;
  if (height < 1 || width < 1 || height > LARGEST_SIDE || width > LARGEST_SIDE) return `spins should have 1 to ${LARGEST_SIDE} rows and columns`;
  for (const [name, value] of [["spins", spins], ["ground", ground]])
    if (!table(value, height, width) || !value.flat().every((s) => Math.abs(s) === 1)) return `${name} should be ${height} x ${width} values, each +1 or -1`;
  if (!table(right, height, width - 1)) return `right should be ${height} x ${width - 1} finite numbers`;
  if (!table(down, height - 1, width)) return `down should be ${height - 1} x ${width} finite numbers`;
  return "";
}

const STYLES = `
.elf-board { max-width: 46rem; }
.elf-board .elf-split { display: grid; grid-template-columns: minmax(0, 1.1fr) minmax(13rem, 0.9fr); gap: 1rem; align-items: start; }
@container (max-width: 33rem) { .elf-board .elf-split { grid-template-columns: minmax(0, 1fr); } }
.elf-board svg { border-radius: 8px; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); user-select: none; touch-action: manipulation; }
.elf-board .elf-site { cursor: pointer; outline: none; }
.elf-board .elf-disc { fill: var(--elf-paper); stroke: var(--elf-ink); stroke-width: 2.4; }
.elf-board .elf-up .elf-disc { fill: var(--elf-ink); }
.elf-board .elf-site text { fill: var(--elf-ink); font-variant-numeric: tabular-nums; font-weight: 600; }
.elf-board .elf-up text { fill: var(--elf-paper); }
.elf-board .elf-ring { fill: none; stroke: none; stroke-width: 3; }
.elf-board .elf-against .elf-ring { stroke: var(--elf-mse); stroke-dasharray: 5 3; }
.elf-board .elf-focus { fill: none; stroke: none; stroke-width: 2; }
.elf-board .elf-site:focus-visible .elf-focus { stroke: currentColor; }
.elf-board .elf-bond { stroke: var(--elf-target); }
.elf-board .elf-cross { stroke: none; fill: none; stroke-width: 3.2; stroke-linecap: round; }
.elf-board .elf-broken .elf-bond { stroke: var(--elf-mse); }
.elf-board .elf-broken .elf-cross { stroke: var(--elf-mse); }
.elf-board .elf-plaquette { fill: var(--elf-energy); fill-opacity: 0.22; }
.elf-board dl { display: grid; grid-template-columns: 1fr auto; gap: 0.15rem 0.8rem; margin: 0; }
.elf-board dt, .elf-board dd { margin: 0; font-weight: 400; }
.elf-board dd { text-align: right; font-variant-numeric: tabular-nums; font-weight: 600; }
.elf-board .elf-won { color: var(--elf-target); font-weight: 600; min-height: 1.4em; margin: 0.3rem 0; }
`;

const CELL = 60, SIZE = 19;
const minus = (text) => text.replace("-", "−");
const signed = (value) => (Math.abs(value) < 0.05 ? "0.0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`);
const copy = (table) => table.map((row) => [...row]);

/** The picture of a lattice: an SVG whose spins are a grid for screen readers, and a function that redraws it. */
function picture(parent, state, flip) {
  const { right, down } = state, height = state.spins.length, width = state.spins[0].length;
  const box = make("svg", { role: "grid", "aria-label": `${height} by ${width} spins`, viewBox: `${-CELL / 2} ${-CELL / 2} ${CELL * width} ${CELL * height}` }, "", parent);
  box.style.maxWidth = `${5 * width}rem`;
  const layer = (name) => make("g", { class: `elf-${name}`, "aria-hidden": "true" }, "", box);
  const plaquettes = layer("plaquettes"), bonds = layer("bonds");
  frustrated(right, down).forEach((row, r) => row.forEach((odd, c) => {
    if (odd) make("rect", { class: "elf-plaquette", x: c * CELL, y: r * CELL, width: CELL, height: CELL }, "", plaquettes);
  }));
  const largest = scale(right, down) || 1, lines = [];
  const bond = (r, c, dr, dc, J) => {
    const group = make("g", {}, "", bonds), x = c * CELL, y = r * CELL;
    make("line", {
      class: "elf-bond", x1: x, y1: y, x2: x + dc * CELL, y2: y + dr * CELL,
      "stroke-width": 1.5 + (8 * Math.abs(J)) / largest, ...(J < 0 ? { "stroke-dasharray": "6 4" } : {}),
    }, "", group);
    const mx = x + (dc * CELL) / 2, my = y + (dr * CELL) / 2, w = 5.5;
    make("path", { class: "elf-cross", d: `M${mx - w} ${my - w}L${mx + w} ${my + w}M${mx - w} ${my + w}L${mx + w} ${my - w}` }, "", group);
    lines.push({ group, J, r, c, dr, dc });
  };
  right.forEach((row, r) => row.forEach((J, c) => bond(r, c, 0, 1, J)));
  down.forEach((row, r) => row.forEach((J, c) => bond(r, c, 1, 0, J)));

  const sites = state.spins.map((row, r) => {
    const line = make("g", { role: "row" }, "", box);
    return row.map((_, c) => {
      const site = make("g", { role: "gridcell", tabindex: r || c ? -1 : 0, transform: `translate(${c * CELL} ${r * CELL})`, "data-elf-site": `${r},${c}` }, "", line);
      make("rect", { x: -CELL / 2, y: -CELL / 2, width: CELL, height: CELL, fill: "transparent" }, "", site);
      make("circle", { class: "elf-focus", r: SIZE + 7 }, "", site);
      make("circle", { class: "elf-ring", r: SIZE + 3.5 }, "", site);
      make("circle", { class: "elf-disc", r: SIZE }, "", site);
      const number = make("text", { "font-size": 12.5 }, "", site);
      site.addEventListener("click", () => { focus(r, c); flip(r, c); });
      return { site, number };
    });
  });
  let at = [0, 0];
  const focus = (r, c) => {
    sites[at[0]][at[1]].site.setAttribute("tabindex", -1);
    at = [r, c];
    sites[r][c].site.setAttribute("tabindex", 0);
    sites[r][c].site.focus({ preventScroll: true });
  };
  box.addEventListener("keydown", (event) => {
    const [r, c] = at, all = event.ctrlKey || event.metaKey;
    const go = {
      ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c],
      Home: [all ? 0 : r, 0], End: [all ? height - 1 : r, width - 1],
    }[event.key];
    if (!go && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation(); // arrow keys mean other things to JupyterLab
    if (!go) flip(r, c);
    else if (go[0] >= 0 && go[0] < height && go[1] >= 0 && go[1] < width) focus(...go);
  });

  return () => {
    const { spins } = state;
    plaquettes.style.display = state.squares ? "" : "none";
    for (const { group, J, r, c, dr, dc } of lines) group.classList.toggle("elf-broken", J * spins[r][c] * spins[r + dr][c + dc] < 0);
    sites.forEach((row, r) => row.forEach(({ site, number }, c) => {
      const s = spins[r][c], h = localField(spins, right, down, r, c), gains = s * h < -1e-9 * largest;
      site.setAttribute("class", `elf-site${s > 0 ? " elf-up" : ""}${state.fields && gains ? " elf-against" : ""}`);
      site.setAttribute("aria-label", `Row ${r + 1}, column ${c + 1}: ${s > 0 ? "up" : "down"}, local field ${signed(h)}, a flip changes the energy by ${signed(2 * s * h)}`);
      number.textContent = state.fields ? signed(h) : "";
    }));
  };
}

function render({ model, el }) {
  const home = root(el, "board", "Spin board: flip spins and lower the energy", STYLES);
  const names = ["right", "down", "spins", "ground"];
  let state = {}, paint = null, running = 0, say = () => {};
  const out = sender(model, "spins", () => copy(state.spins));

  const stop = () => { clearTimeout(running); running = 0; home.dataset.elfBusy = ""; state.busy?.(""); };
  const measure = () => {
    const { spins, right, down, ground } = state;
    const energy = isingEnergy(spins, right, down), best = isingEnergy(ground, right, down);
    let broken = 0;
    right.forEach((row, r) => row.forEach((J, c) => { broken += J * spins[r][c] * spins[r][c + 1] < 0; }));
    down.forEach((row, r) => row.forEach((J, c) => { broken += J * spins[r][c] * spins[r + 1][c] < 0; }));
    return { energy, excess: energy - best, broken, overlap: Math.abs(overlap(spins, ground)) };
  };
  const words = () => { const { energy, excess } = measure(); return `Energy ${minus(energy.toFixed(2))}, ${excess.toFixed(2)} above the ground state.`; };
  const moved = () => { paint.ask(); out.send(); };
  const rested = (what) => { out.flush(); paint.now(); say(`${what} ${words()}`); };

  const flip = (r, c) => {
    stop();
    state.spins[r][c] *= -1;
    state.flips++;
    state.mine = null;
    rested(`Row ${r + 1}, column ${c + 1} is now ${state.spins[r][c] > 0 ? "up" : "down"}.`);
  };
  /** Calls step() until it says that it is done; at once where motion is not wanted. */
  const animate = (name, pause, step, end) => {
    stop();
    state.mine = null;
    if (calm()) { while (step()); rested(end); return; }
    home.dataset.elfBusy = name;
    state.busy(name);
    const tick = () => {
      const more = step();
      moved();
      if (more) running = setTimeout(tick, pause);
      else { stop(); rested(end); }
    };
    running = setTimeout(tick, 0);
  };
  const greedyStep = () => {
    const where = steepest(state.spins, state.right, state.down);
    if (where) { state.spins[where[0]][where[1]] *= -1; state.flips++; }
    return where !== null;
  };
  const greedy = () => animate("greedy", 160, greedyStep, "No single flip lowers the energy any more.");
  const anneal = () => {
    const draw = random(state.seed + state.runs++), unit = rms(state.right, state.down);
    let step = 0;
    animate("anneal", 40, () => {
      for (let k = 0; k < SWEEPS_A_FRAME && step < SWEEPS; k++) {
        state.temperature = unit * cooled(step++);
        sweep(state.spins, state.right, state.down, state.temperature, draw);
      }
      if (step < SWEEPS) return true;
      state.temperature = null;
      return greedyStep();
    }, "Cooled down.");
  };
  const showGround = () => {
    stop();
    if (state.mine) { state.spins = state.mine; state.mine = null; rested("Your spins again."); return; }
    const sign = overlap(state.spins, state.ground) < 0 ? -1 : 1; // of the two, the one that is nearer
    state.mine = copy(state.spins);
    state.spins = state.ground.map((row) => row.map((s) => sign * s));
    rested("The ground state.");
  };

  function build() {
    stop();
    home.replaceChildren();
    const given = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    const wrong = problem(given);
    home.dataset.elfState = wrong ? "error" : "ready";
    if (wrong) { fail(home, `The spin board cannot draw this: ${wrong}.`); paint = null; return; }
    state = { ...given, spins: copy(given.spins), begin: copy(given.spins), flips: 0, runs: 0, mine: null, temperature: null,
      seed: model.get("seed") ?? 0, fields: model.get("fields") ?? true, squares: model.get("plaquettes") ?? true };
    const split = make("div", { class: "elf-split" }, "", home);
    const draw = picture(make("div", {}, "", split), state, flip);
    const side = make("div", {}, "", split), list = make("dl", {}, "", side);
    const entry = (text) => { make("dt", {}, text, list); return make("dd", {}, "", list); };
    const bonds = state.right.flat().length + state.down.flat().length;
    const shown = { energy: entry("energy"), excess: entry("above the ground state"), broken: entry("broken bonds"), overlap: entry("overlap with it, |q|"), flips: entry("flips") };
    const won = make("p", { class: "elf-won" }, "", side);
    controls(side);
    make("p", { class: "elf-note" },
      "Click a spin, or Tab to the board, move by arrow keys and press Space. Filled: +1, open: −1. Lines: bonds, wide for large |J|, dashed where J < 0; " +
      "orange with a cross where broken. Tinted squares are frustrated. Numbers: local fields; a dashed ring marks a spin that disagrees with its field.", home);
    say = voice(home);
    paint = painter(home, () => {
      draw();
      const now = measure(), home_ = home.dataset;
      shown.energy.textContent = minus(now.energy.toFixed(2));
      shown.excess.textContent = Math.max(0, now.excess).toFixed(2);
      shown.broken.textContent = `${now.broken} of ${bonds}`;
      shown.overlap.textContent = now.overlap.toFixed(2);
      shown.flips.textContent = state.flips;
      const least = now.excess < 1e-6 * (scale(state.right, state.down) || 1);
      won.textContent = state.temperature ? `temperature ${state.temperature.toFixed(2)}` : least ? `${model.get("optimal") === false ? "The best state known." : "This is the ground state."}` : "";
      state.pressed(state.mine !== null);
      Object.assign(home_, { elfEnergy: now.energy, elfExcess: now.excess, elfBroken: now.broken, elfOverlap: now.overlap, elfFlips: state.flips });
    });
    paint.now();
  }

  function controls(parent) {
    const bar = make("div", { class: "elf-controls" }, "", parent);
    const over = (name, action) => () => { if (home.dataset.elfBusy === name) { stop(); state.temperature = null; rested("Stopped."); } else action(); };
    button(bar, "Reset", () => { stop(); state.spins = copy(state.begin); state.flips = 0; state.mine = null; state.temperature = null; rested("As at the beginning."); });
    const runs = { greedy: button(bar, "Greedy descent", over("greedy", greedy)), anneal: button(bar, "Anneal", over("anneal", anneal)) };
    const labels = { greedy: "Greedy descent", anneal: "Anneal" };
    state.busy = (name) => { for (const key in runs) runs[key].textContent = key === name ? "Stop" : labels[key]; };
    const ground = button(bar, "Show ground state", showGround, { "aria-pressed": "false" });
    state.pressed = (on) => ground.setAttribute("aria-pressed", on);
    for (const [key, text] of [["fields", "Local fields"], ["squares", "Frustration"]])
      button(bar, text, (node) => { state[key] = !state[key]; node.setAttribute("aria-pressed", state[key]); paint.now(); }, { "aria-pressed": state[key] });
  }

  const outside = () => {
    if (out.pending() || running) return;
    const same = names.every((name) => JSON.stringify(model.get(name)) === JSON.stringify(state[name]));
    if (same) return;
    // New spins on the same lattice: the count of flips and the buttons stay.
    const lattice = ["right", "down", "ground"].every((name) => JSON.stringify(model.get(name)) === JSON.stringify(state[name]));
    if (paint && lattice && !problem({ ...state, spins: model.get("spins") })) { state.spins = copy(model.get("spins")); state.mine = null; paint.now(); }
    else build();
  };
  for (const name of names) model.on(`change:${name}`, outside);
  build();
  return () => { stop(); out.end(); paint?.end(); for (const name of names) model.off(`change:${name}`, outside); };
}

export const mount = mounter(render);
export default widget(render);
