// What the suites share: where the server is, and how their tests are run. As `suite.py` is for those in Python.

import assert from "node:assert/strict";

export const [BASE_URL, KEY, MODEL] = process.argv.slice(2);

/** Runs the tests one after the other, prints a line for each, and exits with 1 when any failed. */
export async function runTests(tests) {
  let failed = 0;
  for (const test of tests) {
    failed += (await passes(test)) ? 0 : 1;
  }
  console.log(`${tests.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || tests.length === 0 ? 1 : 0;
}

async function passes(test) {
  const name = test.name.replaceAll("_", " ");
  try {
    await test();
    console.log(`ok      ${name}`);
    return true;
  } catch (error) {
    console.log(`FAILED  ${name}\n${error.stack}`);
    return false;
  }
}

/** The promise must be rejected with this error of the client; the error is given back. */
export async function expect(kind, promise) {
  const answer = await promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );
  assert.ok(answer.error instanceof kind, `no ${kind.name}: ${answer.error ?? JSON.stringify(answer.value)}`);
  return answer.error;
}
