// Reads {"source": JavaScript, "cases": [...]} from standard input, prints what the playground's own functions answer.
import { readFileSync } from "node:fs";
const { source, cases } = JSON.parse(readFileSync(0, "utf8"));
const { constants, squaredError, pairEnergy, rotated, mirrored, problem } = await import(
  "data:text/javascript;base64," + Buffer.from(source).toString("base64")
);
const answers = cases.map(({ prediction, target, springs }) => ({
  mse: squaredError(prediction, target),
  energy: pairEnergy(prediction, target, constants(target, springs)),
  rotated: rotated(prediction, 0.7),
  mirrored: mirrored(prediction),
}));
const bad = [[], [[0]], [[0, null]], [[0, "1"]], Array(65).fill([0, 0]), "<b>", [[0, 1, 2]]];
console.log(JSON.stringify({ answers, refused: bad.map((points) => problem(points)), mismatch: problem([[0, 0]], 2) }));
