// What the plays of .ci/pomelo-cluster have in common: steps that print a line each, and waiting.
export const opt = (name) => process.argv[process.argv.indexOf(`--${name}`) + 1];

export const PATIENCE = 15000;
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let bad = 0;
export async function step(name, play) {
  const start = performance.now();
  try {
    const found = await play();
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`ok      ${name} (${seconds} s)${found ? `: ${found}` : ''}`);
  } catch (error) {
    bad++;
    console.log(`not ok  ${name}: ${error.message}`);
  }
}
export const same = (got, wanted) => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a} instead of ${b}`);
};
export async function eventually(what, holds) {
  for (const end = performance.now() + PATIENCE; performance.now() < end; await sleep(50)) {
    if (await holds()) return;
  }
  throw new Error(`never happened: ${what}`);
}
// Ends the play; a step that was not ok is told by the exit code.
export const finish = () => process.exit(bad ? 1 : 0);
