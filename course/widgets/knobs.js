import { make, put, mounter, widget } from "./dom.js";
import { plane, panel, slider, carry, stage } from "./stage.js";
// A picture with one or two sliders, and tags with what each place of them costs. All numbers come from Python.

/** Thousandths in base64 to numbers; null where the text is no such thing. */
export function unpack(text) {
  try {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 1000);
  } catch (error) { return null; }
}

const full = (list) => Array.isArray(list) && list.length > 0;

/** What is wrong with the state, or "". */
export function problem({ sliders, panels, tags, at }) {
  if (!full(sliders) || sliders.length > 2 || !sliders.every(({ name, labels }) => typeof name === "string" && full(labels))) return "sliders should be one or two, each with labels";
  if (!full(at) || at.length !== sliders.length || !at.every((place, i) => Number.isInteger(place) && place >= 0 && place < sliders[i].labels.length)) return "at should be a place on each slider";
  const count = sliders.reduce((product, { labels }) => product * labels.length, 1);
  for (const { dots, edges, frames, arrows, view } of Array.isArray(panels) ? panels : []) {
    const numbers = 3 * count * (dots?.length ?? 0);
    if (!numbers || unpack(frames)?.length !== numbers || (arrows && unpack(arrows)?.length !== numbers)) return `frames should hold ${numbers} numbers, one picture for each place of the sliders`;
    if (!Array.isArray(edges) || !edges.every((pair) => pair.length === 2 && pair.every((i) => i >= 0 && i < dots.length))) return "edges should join dots";
    if (!full(view) || view.length !== 4 || !(view[1] > view[0]) || !(view[3] > view[2])) return "view should be left, right, bottom and top";
  }
  if (!full(panels)) return "panels should be one or more";
  const good = ({ name, values, top }) => typeof name === "string" && Array.isArray(values) && values.length === count && values.every(Number.isFinite) && top > 0;
  return Array.isArray(tags) && tags.every(good) ? "" : `tags should have a name, a top and ${count} numbers each`;
}

const ink = (color) => (color.startsWith("#") ? color : color === "ink" ? "currentColor" : `var(--elf-${color}, #7f8790)`);
const digits = (value) => { const size = Math.abs(value); return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.1 || size < 1e-9 ? value.toFixed(2) : String(Number(value.toPrecision(2))); };

/** Dots, sticks and arrows at one place of the sliders after another; what is nearer to the reader is drawn last. */
function scene(parent, { title, tone, dots, edges, frames, arrows, view, outline }) {
  const { figure } = panel(parent, title, tone), map = plane(figure, view, { role: "img", "aria-label": title });
  map.box.style.touchAction = "pan-y";
  for (const [x, y] of outline) make("circle", { cx: map.X(x), cy: map.Y(y), r: 4, fill: "none", stroke: "var(--elf-target)", "stroke-width": 1.5 }, "", map.box);
  const all = unpack(frames), pushes = arrows ? unpack(arrows) : null, n = dots.length;
  const back = make("g", {}, "", map.box), front = make("g", {}, "", map.box);
  const sticks = edges.map(([i, j]) => make("line", { "stroke-linecap": "round", stroke: dots[i].color === dots[j].color && !dots[i].color.startsWith("#") ? ink(dots[i].color) : "#8a8f98" }, "", back));
  const balls = dots.map(({ color, radius, plain }) => make("circle", { r: radius * map.unit, fill: ink(color), stroke: "currentColor", "stroke-width": plain ? 0 : 0.9 }, "", front));
  const flies = pushes && dots.map(() => make("path", { fill: "none", stroke: ink(tone || "ink"), "stroke-width": 2.2, "stroke-linecap": "round", "stroke-linejoin": "round" }, "", map.box));
  const point = (place, i) => all.slice(3 * (place * n + i), 3 * (place * n + i) + 3);
  return { map, n, point, draw: (place) => {
    const now = dots.map((_, i) => point(place, i));
    balls.forEach((ball, i) => put(ball, { cx: map.X(now[i][0]), cy: map.Y(now[i][1]) }));
    edges.forEach(([i, j], e) => put(sticks[e], { x1: map.X(now[i][0]), y1: map.Y(now[i][1]), x2: map.X(now[j][0]), y2: map.Y(now[j][1]), "stroke-width": Math.max(1, (dots[i].plain ? 0.45 : 0.7) * Math.min(dots[i].radius, dots[j].radius) * map.unit) }));
    [...balls.keys()].sort((i, j) => now[i][2] - now[j][2]).forEach((i) => front.appendChild(balls[i]));
    flies?.forEach((fly, i) => {
      const [dx, dy] = pushes.slice(3 * (place * n + i)), x = map.X(now[i][0]), y = map.Y(now[i][1]), u = dx * map.unit, v = -dy * map.unit, length = Math.hypot(u, v), head = Math.min(6, length / 2) / (length || 1);
      const wing = (side) => `${x + u - head * (u + side * 0.6 * v)} ${y + v - head * (v - side * 0.6 * u)}`;
      put(fly, { d: length < 1 ? "" : `M${x} ${y}L${x + u} ${y + v}M${wing(1)}L${x + u} ${y + v}L${wing(-1)}` });
    });
  } };
}

function build(home, { sliders, panels, tags, at, picks, note }, { keep, say, painter }) {
  const places = [...at], box = make("div", { class: "elf-panels" }, "", home);
  const scenes = panels.map((one) => scene(box, one));
  const list = make("div", { class: scenes.length > 1 ? "elf-tags elf-below" : "elf-tags" }, "", tags.length ? box : null);
  const rows = tags.map(({ name, tone }) => {
    const row = make("div", {}, "", list);
    make("span", {}, name, row);
    const bar = make("div", { class: "elf-price" }, "", row), number = make("span", { class: "elf-number" }, "", row);
    const fill = make("div", {}, "", bar);
    fill.style.background = ink(tone);
    return { fill, number };
  });
  const place = () => places.reduce((index, now, i) => index * sliders[i].labels.length + now, 0);
  const text = ({ values, unit }) => `${digits(values[place()])}${unit ? ` ${unit}` : ""}`;
  const words = () => `${sliders.map(({ name, labels }, i) => `${name} ${labels[places[i]]}`).join(", ")}. ${tags.map((tag) => `${tag.name}: ${text(tag)}`).join(", ")}.`;
  const draw = painter(() => {
    for (const one of scenes) one.draw(place());
    tags.forEach((tag, i) => {
      rows[i].number.textContent = text(tag);
      rows[i].fill.style.width = `${Math.min(100, (100 * Math.max(0, tag.values[place()])) / tag.top)}%`;
    });
    home.dataset.elfPlace = places.join(" ");
  });
  const rest = () => { keep("at", [...places]); say(words()); };
  const bar = make("div", { class: "elf-controls" }, "", home);
  const knobs = sliders.map(({ name, labels }, i) => slider(bar, { name, min: 0, max: labels.length - 1, step: 1, value: places[i], say: (to) => labels[to] }, (to, resting) => {
    places[i] = to;
    draw.ask();
    if (resting) rest();
  }));
  const move = (i, to) => {
    places[i] = Math.round(Math.min(sliders[i].labels.length - 1, Math.max(0, to)));
    knobs[i].set(places[i]);
  };
  // A drag in the picture turns the knobs too: sideways the first, up and down the second; a press picks a dot, where dots may be picked.
  for (const { map, n, point } of scenes) {
    let from = null;
    carry(map.box, map.world, ([x, y], resting) => {
      if (!from) {
        const far = (i) => Math.hypot(point(place(), i)[0] - x, point(place(), i)[1] - y);
        if (picks) move(1, [...Array(n).keys()].reduce((best, i) => (far(i) < far(best) ? i : best)));
        from = { x, y, places: [...places] };
      }
      const steps = (i, way, wide) => from.places[i] + ((sliders[i].labels.length - 1) * way * map.unit) / wide;
      move(0, steps(0, picks ? y - from.y : x - from.x, picks ? 60 : 160));
      if (!picks && sliders.length > 1) move(1, steps(1, y - from.y, 160));
      draw.ask();
      if (resting) { from = null; rest(); }
    });
  }
  if (note) make("p", { class: "elf-note" }, note, home);
  draw.now();
  return () => draw.end();
}

const STYLES = `
.elf-knobs svg { cursor: grab; }
.elf-knobs .elf-tags { display: grid; gap: 0.6rem; padding-top: 1.6rem; }
.elf-knobs .elf-below { grid-column: 1 / -1; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); padding-top: 0; }
@container (max-width: 30rem) { .elf-knobs .elf-tags { padding-top: 0; } }
.elf-knobs .elf-tags > div { display: grid; grid-template-columns: 1fr auto; gap: 0.15rem 0.6rem; }
.elf-knobs .elf-price { grid-row: 2; grid-column: 1 / 3; height: 10px; border-radius: 5px; background: color-mix(in srgb, currentColor 12%, transparent); overflow: hidden; }
.elf-knobs .elf-price > div { height: 100%; width: 0; }
`;
const render = stage("knobs", { label: "A picture with knobs", traits: ["sliders", "panels", "tags", "at", "picks", "note"], problem, build, styles: STYLES });
export const mount = mounter(render);
export default widget(render);
