import { make, put, button, mounter, widget } from "./dom.js";
import { plane, slider, stage } from "./stage.js";
// Guess, then see: takes the reader's number or choice, then opens the answer. Nothing is kept, nothing is sent.

/** What is wrong with the state, or "". */
export function problem({ question, choices, low, high, step, answer }) {
  if (typeof question !== "string" || !question) return "question should be words";
  if (!Array.isArray(choices) || choices.length === 1) return "choices should be none, or two and more";
  if (choices.length) return Number.isInteger(answer) && answer >= 0 && answer < choices.length ? "" : "answer should be one of the choices";
  return low < high && step > 0 && answer >= low && answer <= high ? "" : "low, high and step should be a range with the answer in it";
}

const tidy = (value) => String(Number(value.toPrecision(4)));

function build(home, { question, choices, low, high, step, unit, answer, why }, { say, painter }) {
  const form = make("fieldset", {}, "", home), many = choices.length;
  make("legend", {}, question, form);
  const words = (value) => (many ? choices[value] : `${tidy(value)} ${unit}`.trim());
  const name = `elf-guess-${Math.random()}`; // radio buttons of two questions on one page keep apart
  let guess = many ? -1 : (low + high) / 2, open = false;
  const line = many ? null : plane(make("div", { class: "elf-panels" }, "", null), [low - 0.06 * (high - low), high + 0.06 * (high - low), -1, 1], { "aria-hidden": "true" }, 26);
  const radios = choices.map((text, value) => {
    const label = make("label", {}, "", form), radio = make("input", { type: "radio", name, value }, "", label);
    make("span", {}, text, label);
    radio.addEventListener("change", () => { guess = value; rest(); });
    return label;
  });
  const bar = make("div", { class: "elf-controls" }, "", home);
  if (!many) slider(bar, { name: "my guess", min: low, max: high, step, value: guess, say: words }, (value, resting) => {
    guess = value;
    if (resting) rest(); else draw.ask();
  });
  const see = button(bar, "See", () => { open = true; rest(); });
  if (line) home.insertBefore(line.box.parentNode, bar);
  const result = make("p", { class: "elf-result" }, "", home);
  const axis = line && make("path", { d: `M0 ${line.Y(0)}H200`, stroke: "currentColor", "stroke-opacity": 0.4 }, "", line.box);
  const mine = axis && make("circle", { cy: line.Y(0), r: 5, fill: "var(--elf-prediction)" }, "", line.box);
  const truth = axis && make("path", { stroke: "var(--elf-target)", "stroke-width": 3.5 }, "", line.box);
  const draw = painter(() => {
    see.disabled = guess < (many ? 0 : low);
    radios.forEach((label, value) => { label.dataset.elfRight = open && value === answer; });
    if (mine) put(mine, { cx: line.X(guess) });
    if (truth && open) put(truth, { d: `M${line.X(answer)} 4V22` });
    const near = many ? guess === answer : Math.abs(guess - answer) <= 0.05 * (high - low);
    result.textContent = open ? `${near ? "Yes" : `You said ${words(guess)}`}: ${words(answer)}. ${why}` : "";
    home.dataset.elfGuess = open ? "open" : "closed";
  });
  const rest = () => { draw.now(); say(result.textContent); };
  draw.now();
  return () => draw.end();
}

const STYLES = `
.elf-guess { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); max-width: 40rem; }
.elf-guess fieldset { border: 0; padding: 0; margin: 0; display: grid; gap: 0.15rem; }
.elf-guess legend { font-size: 1em; line-height: 1.4; font-weight: 600; padding: 0; margin-bottom: 0.4rem; }
.elf-guess fieldset label { padding: 0.15rem 0.5rem; border-radius: 6px; border-left: 4px solid transparent; min-height: 1.6rem; }
.elf-guess fieldset label[data-elf-right="true"] { border-left-color: var(--elf-target); background: color-mix(in srgb, var(--elf-target) 14%, transparent); }
.elf-stage.elf-guess svg { border: 0; }
.elf-guess .elf-result { margin: 0.2rem 0 0; min-height: 1.4em; }
`;
const render = stage("guess", { label: "Guess, then see", traits: ["question", "choices", "low", "high", "step", "unit", "answer", "why"], problem, build, styles: STYLES });
export const mount = mounter(render);
export default widget(render);
