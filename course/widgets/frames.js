import { make, root, fail, voice, player, sender, mounter, widget } from "./dom.js";
// A slider that flips through pictures made beforehand: what a slider with a kernel would show, without one.

// The pictures are drawn dark on white: on a dark page lightness turns around, hues stay, and the ground is the widget's.
const TURNED = "filter: invert(0.92) hue-rotate(180deg); mix-blend-mode: lighten;";
const STYLES = `
.elf-frames img { display: block; max-width: 100%; height: auto; }
[data-theme="dark"] .elf-frames img, [data-jp-theme-light="false"] .elf-frames img, .vscode-dark .elf-frames img, html[theme="dark"] .elf-frames img { ${TURNED} }
@media (prefers-color-scheme: dark) {
  :root:not([data-theme]):not([theme]) body:not([data-jp-theme-light]):not(.vscode-light) .elf-frames img { ${TURNED} }
}
`;

/** What is wrong with the state, or "". */
export function problem({ pictures, labels, alts, choices }) {
  if (!Array.isArray(pictures) || pictures.length < 1) return "pictures should be one or more";
  if (!pictures.every((text) => typeof text === "string" && /^[A-Za-z0-9+/]+=*$/.test(text))) return "pictures should be PNG data in base64";
  if (!Array.isArray(alts) || alts.length !== pictures.length) return `alts should be ${pictures.length} texts, one a picture`;
  const rows = Math.max(choices?.length ?? 0, 1);
  if (!Array.isArray(labels) || labels.length * rows !== pictures.length) return `labels should be ${pictures.length / rows} texts, one a position of the slider`;
  return "";
}

function render({ model, el }) {
  const home = root(el, "frames", model.get("name") || "Pictures to flip through", STYLES);
  const out = sender(model, "frame", () => Number(home.dataset.elfFrame));
  let shown = null;
  const build = () => {
    shown?.stop();
    home.replaceChildren();
    const state = Object.fromEntries(["pictures", "labels", "alts", "name", "width", "fps", "frame", "choices", "choice", "question"].map((name) => [name, model.get(name)]));
    const wrong = problem(state);
    home.dataset.elfState = wrong ? "error" : "ready";
    if (wrong) { fail(home, `The pictures cannot be shown: ${wrong}.`); shown = null; return; }
    home.style.maxWidth = `${Math.max(state.width, 320)}px`;
    const picture = make("img", { width: state.width }, "", home);
    const say = voice(home);
    const count = state.labels.length, choices = state.choices ?? [];
    let row = choices.length ? Math.min(Math.max(0, state.choice ?? 0), choices.length - 1) : 0;
    const rest = (i) => { out.flush(); say(state.alts[row * count + i]); };
    shown = player(home, home, { ...state, count, start: Math.min(Math.max(0, state.frame ?? 0), count - 1) }, (i) => {
      picture.src = `data:image/png;base64,${state.pictures[row * count + i]}`;
      picture.alt = state.alts[row * count + i];
    }, rest);
    if (!choices.length) return;
    const label = make("label", {}, "", null);
    make("span", {}, state.question, label);
    const menu = make("select", {}, "", label);
    choices.forEach((text, i) => make("option", { value: i }, text, menu));
    menu.value = row;
    menu.addEventListener("change", () => {
      row = Number(menu.value);
      shown.go(Number(home.dataset.elfFrame));
      model.set("choice", row);
      rest(Number(home.dataset.elfFrame));
    });
    (home.querySelector(".elf-controls") ?? make("div", { class: "elf-controls" }, "", home)).prepend(label);
  };
  const moved = () => { const frame = model.get("frame"); if (shown && String(frame) !== home.dataset.elfFrame) shown.go(frame); };
  model.on("change:pictures", build);
  model.on("change:frame", moved);
  build();
  return () => { shown?.stop(); out.end(); model.off("change:pictures", build); model.off("change:frame", moved); };
}

export const mount = mounter(render);
export default widget(render);
