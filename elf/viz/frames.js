import { make, root, fail, voice, player, sender, mounter } from "./dom.js";
// A slider that flips through pictures made beforehand: what a slider with a kernel would show, without one.

const STYLES = `
.elf-frames img { display: block; max-width: 100%; height: auto; border-radius: 8px; }
`;

/** What is wrong with the state, or "". */
export function problem({ pictures, labels, alts }) {
  if (!Array.isArray(pictures) || pictures.length < 1) return "pictures should be one or more";
  if (!pictures.every((text) => typeof text === "string" && /^[A-Za-z0-9+/]+=*$/.test(text))) return "pictures should be PNG data in base64";
  for (const [name, value] of [["labels", labels], ["alts", alts]])
    if (!Array.isArray(value) || value.length !== pictures.length) return `${name} should be ${pictures.length} texts, one a picture`;
  return "";
}

function render({ model, el }) {
  const home = root(el, "frames", model.get("name") || "Pictures to flip through", STYLES);
  const out = sender(model, "frame", () => Number(home.dataset.elfFrame));
  let shown = null;
  const build = () => {
    shown?.stop();
    home.replaceChildren();
    const state = Object.fromEntries(["pictures", "labels", "alts", "name", "width", "fps", "frame"].map((name) => [name, model.get(name)]));
    const wrong = problem(state);
    home.dataset.elfState = wrong ? "error" : "ready";
    if (wrong) { fail(home, `The pictures cannot be shown: ${wrong}.`); shown = null; return; }
    home.style.maxWidth = `${Math.max(state.width, 320)}px`;
    const picture = make("img", { width: state.width }, "", home);
    const say = voice(home);
    const count = state.pictures.length;
    shown = player(home, home, { ...state, count, start: Math.min(Math.max(0, state.frame ?? 0), count - 1) }, (i) => {
      picture.src = `data:image/png;base64,${state.pictures[i]}`;
      picture.alt = state.alts[i];
    }, (i) => { out.flush(); say(state.alts[i]); });
  };
  const moved = () => { const frame = model.get("frame"); if (shown && String(frame) !== home.dataset.elfFrame) shown.go(frame); };
  model.on("change:pictures", build);
  model.on("change:frame", moved);
  build();
  return () => { shown?.stop(); out.end(); model.off("change:pictures", build); model.off("change:frame", moved); };
}

export const mount = mounter(render);
export default { render };
