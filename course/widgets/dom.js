// What the widgets share: making elements, styles, a voice for screen readers, a model without a kernel. No network.
// Python puts this file's text before a widget's own (course/widgets/web.py); a plain page imports it as the module that it is.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "circle", "line", "path", "polygon", "polyline", "rect", "text", "defs", "radialGradient", "stop"]);

/** An element. Text is only ever set as text, never as HTML; styles go through the CSSOM, which a strict style-src allows. */
export function make(tag, attributes = {}, text = "", parent = null) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  put(node, attributes);
  if (text) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

export const put = (node, attributes) => { for (const name in attributes) node.setAttribute(name, attributes[name]); };

export const short = (value) => {
  const size = Math.abs(value);
  return size < 5e-7 ? (value === 0 ? "0" : "0.000") : size < 1000 ? value.toFixed(3) : value.toExponential(2);
};

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const LIGHT = `--elf-target: #076A2B; --elf-prediction: #028FF1; --elf-mse: #DF7C17; --elf-mse-text: #A65200; --elf-energy: #6F377F;
  --elf-stretched: #B3261E; --elf-squeezed: #0F7A70; --elf-paper: #ffffff; --elf-ink: #1f2328;`;
const DARK = `--elf-target: #4CBF74; --elf-prediction: #4FB3FF; --elf-mse: #F29A3F; --elf-mse-text: #F29A3F; --elf-energy: #C48BD6;
  --elf-stretched: #FF8A80; --elf-squeezed: #4FC7BA; --elf-paper: #16191d; --elf-ink: #e8eaed;`;
// Ink and paper are the widget's own: the book's theme puts outputs of a dark page on light ground.
// The book's theme, JupyterLab, VS Code and Colab each say in their own way that the page is dark; elsewhere the system says it.
const COMMON = `
.elf-widget { ${LIGHT} color: var(--elf-ink); background: var(--elf-paper); font: 14px/1.4 system-ui, sans-serif; container-type: inline-size; border-radius: 8px; padding: 0.5rem; box-sizing: border-box; text-align: left; }
[data-theme="dark"] .elf-widget, [data-jp-theme-light="false"] .elf-widget, .vscode-dark .elf-widget, html[theme="dark"] .elf-widget { ${DARK} }
@media (prefers-color-scheme: dark) {
  :root:not([data-theme]):not([theme]) body:not([data-jp-theme-light]):not(.vscode-light) .elf-widget { ${DARK} }
}
.elf-widget .elf-controls { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin: 0.6rem 0 0.3rem; }
.elf-widget button, .elf-widget select {
  font: inherit; color: inherit; background: transparent; padding: 0.25rem 0.65rem; border-radius: 6px; cursor: pointer; min-height: 2rem;
  border: 1px solid color-mix(in srgb, currentColor 45%, transparent);
}
.elf-widget option { color: CanvasText; background: Canvas; }
.elf-widget button:hover { background: color-mix(in srgb, currentColor 10%, transparent); }
.elf-widget button[aria-pressed="true"] { background: color-mix(in srgb, currentColor 18%, transparent); border-color: currentColor; }
.elf-widget button:disabled { opacity: 0.6; cursor: default; }
.elf-widget :is(button, select, input):focus-visible { outline: 2px solid currentColor; outline-offset: 1px; }
.elf-widget label { display: inline-flex; align-items: center; gap: 0.4rem; }
.elf-widget .elf-grow { flex: 1 1 12rem; }
.elf-widget .elf-grow input { flex: 1; }
.elf-widget input[type="range"] { accent-color: var(--elf-prediction); min-width: 6rem; }
.elf-widget svg { display: block; width: 100%; }
.elf-widget svg text { fill: currentColor; text-anchor: middle; dominant-baseline: central; pointer-events: none; }
.elf-widget .elf-note { opacity: 0.9; font-size: 0.85rem; margin: 0.2rem 0; }
.elf-widget .elf-sr { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }
.elf-widget .elf-error { border-left: 4px solid var(--elf-stretched); padding: 0.4rem 0.8rem; margin: 0.3rem 0; }
.elf-widget .elf-number { font-variant-numeric: tabular-nums; font-weight: 600; }
`;

/** The widget's root in `el`, with its styles adopted by the document: no style element, so that style-src 'self' holds. */
export function root(el, name, label, styles) {
  const home = el.getRootNode().adoptedStyleSheets ? el.getRootNode() : document;
  const present = new Set(home.adoptedStyleSheets.map((sheet) => sheet.elf));
  for (const [key, text] of [["common", COMMON], [name, styles]]) {
    if (present.has(key)) continue;
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(text);
    sheet.elf = key;
    home.adoptedStyleSheets = [...home.adoptedStyleSheets, sheet];
  }
  return make("div", { class: `elf-widget elf-${name}`, "data-elf-kind": name, role: "group", "aria-label": label }, "", el);
}

export const fail = (parent, words) => make("p", { class: "elf-error", role: "alert" }, words, parent);

/** A polite live region. What is said twice in a row is said once. */
export function voice(parent) {
  const node = make("p", { class: "elf-sr", "aria-live": "polite" }, "", parent);
  return (words) => { node.textContent = words; };
}

export function button(parent, text, action, attributes = {}) {
  const node = make("button", { type: "button", ...attributes }, text, parent);
  node.addEventListener("click", () => action(node));
  return node;
}

/** Calls `draw` at most once a frame; counts the frames and times them in `node`'s data: elfDraws, elfDrawMs. */
export function painter(node, draw) {
  let asked = 0, draws = 0;
  const paint = () => {
    asked = 0;
    const begin = performance.now();
    draw();
    node.dataset.elfDraws = ++draws;
    node.dataset.elfDrawMs = (performance.now() - begin).toFixed(2);
  };
  return { ask: () => { asked ||= requestAnimationFrame(paint); }, now: () => { cancelAnimationFrame(asked); paint(); }, end: () => cancelAnimationFrame(asked) };
}

/** Keeps a trait in step with the picture: `send` at most ten times a second while things move, `flush` when they rest. */
export function sender(model, name, value) {
  let timer = 0;
  const flush = () => {
    clearTimeout(timer);
    timer = 0;
    model.set(name, value());
    // On a static page there is no kernel to hear it; the picture must not care.
    try { model.save_changes(); } catch (error) { /* no kernel */ }
  };
  return { send: () => { timer ||= setTimeout(flush, 100); }, flush, pending: () => timer !== 0, end: () => clearTimeout(timer) };
}

/** Play button, slider and label for something with `count` frames; `show(i)` draws one. Gives { go, stop }. */
export function player(parent, home, { count, labels, name, fps, start }, show, rest) {
  const bar = make("div", { class: "elf-controls" }, "", parent);
  let at = start, timer = 0;
  const play = button(bar, "Play", () => (timer ? stop() : run()));
  const label = make("label", { class: "elf-grow" }, "", bar);
  make("span", {}, name, label);
  const slider = make("input", { type: "range", min: 0, max: count - 1, step: 1, value: start }, "", label);
  const words = make("span", { class: "elf-number", "data-elf-label": "" }, "", bar);
  const say = (i) => labels[i] ?? `${i + 1} of ${count}`;
  const go = (i) => {
    at = i;
    slider.value = i;
    slider.setAttribute("aria-valuetext", say(i));
    words.textContent = say(i);
    home.dataset.elfFrame = i;
    show(i);
  };
  const stop = () => {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    home.dataset.elfBusy = "";
    rest(at);
  };
  const run = () => {
    if (at === count - 1) go(0);
    play.textContent = "Pause";
    home.dataset.elfBusy = "play";
    timer = setInterval(() => { if (at < count - 1) go(at + 1); else stop(); }, 1000 / fps);
  };
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); rest(at); });
  slider.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab has other uses for arrow keys
  if (!fps || count < 2) play.remove();
  if (count < 2) bar.remove();
  go(start);
  return { go, stop };
}

/** A repeatable source of numbers in [0, 1) (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * What Jupyter's front ends take, which show widgets through anywidget. That gives a module two seconds to be there; on a
 * page that is busy for longer its model refuses all that Python says from then on, and the figure would never change
 * again. The module is here now: where the model refuses a message, the widget hears Python itself, and asks what it missed.
 */
export const widget = (render) => ({
  initialize({ model }) {
    const whole = model.set({}); // the model itself, of which anywidget gives a part
    whole?._handle_comm_msg?.({ content: { data: {} } }).catch(() => {
      const { _handle_comm_msg: hear } = Object.getPrototypeOf(Object.getPrototypeOf(whole));
      whole.comm.on_msg(hear.bind(whole));
      whole.comm.send({ method: "request_state" }, {});
    });
  },
  render,
});

/** `mount(element, state)` for a plain page: the widget without kernel and widget manager; gives { model, remove }. */
export const mounter = (render) => (el, state = {}) => {
  const values = { ...state }, heard = new Map();
  const model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; for (const listener of [...(heard.get(`change:${name}`) ?? [])]) listener(); },
    on: (name, listener) => { heard.set(name, [...(heard.get(name) ?? []), listener]); },
    off: (name, listener) => { heard.set(name, (heard.get(name) ?? []).filter((other) => other !== listener)); },
    save_changes: () => {},
    send: () => {},
  };
  const clean = render({ model, el });
  return { model, remove: () => { clean?.(); el.replaceChildren(); } };
};
