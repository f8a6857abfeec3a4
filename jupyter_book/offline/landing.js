// The playground on a plain page: the widget's own file, and a model that no kernel listens to.
import playground from "./playground.js";

const el = document.getElementById("landing-playground");
const state = await (await fetch(new URL("playground.json", import.meta.url))).json();
const listeners = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    const changed = state[name] !== value;
    state[name] = value;
    if (changed) for (const listener of listeners[`change:${name}`] ?? []) listener();
  },
  save_changes: () => {},
  on: (name, listener) => (listeners[name] ??= []).push(listener),
  off: (name, listener) => { listeners[name] = (listeners[name] ?? []).filter((other) => other !== listener); },
};
el.replaceChildren();
playground.render({ model, el });
el.dataset.ready = "yes";
