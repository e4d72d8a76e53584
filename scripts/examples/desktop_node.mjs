// A desktop program in the style of Electron's main process: it runs `cells-loopback login --json`,
// follows the events, and asks for a token whenever it needs one.
//
//     node desktop_node.mjs files.example.com

import { execFile, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

/** Log in; resolves with the last event, rejects with its message. `signal` is the Cancel button's. */
export function login(args, { onEvent = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn("cells-loopback", ["login", ...args, "--json", "--app-name", "Example"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    signal?.addEventListener("abort", () => child.kill("SIGTERM"));
    let last;
    createInterface({ input: child.stdout }).on("line", (line) => {
      last = JSON.parse(line);
      onEvent(last);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(last);
      else reject(Object.assign(new Error(last?.message ?? `ended with ${code}`), { exitCode: code }));
    });
  });
}

/** A valid access token, renewed first when it is about to expire; takes milliseconds otherwise. */
export async function token(profile) {
  const { stdout } = await promisify(execFile)("cells-loopback", ["token", "--profile", profile]);
  return stdout.trim();
}

/** Call the REST API; once more with a renewed token after a 401. */
export async function api(session, path) {
  const answer = (accessToken) =>
    fetch(new URL(path, session.site), { headers: { Authorization: `Bearer ${accessToken}` }, redirect: "error" });
  const response = await answer(await token(session.profile));
  if (response.status !== 401) return response;
  await promisify(execFile)("cells-loopback", ["token", "--refresh", "--profile", session.profile]);
  return answer(await token(session.profile));
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const cancel = new AbortController();
  process.once("SIGINT", () => cancel.abort());
  try {
    const session = await login(process.argv.slice(2), {
      onEvent: (event) => console.error(event.event),
      signal: cancel.signal,
    });
    const response = await api(session, "/a/frontend/state");
    console.log(`logged in to ${session.site} as ${session.user}; the API answers ${response.status}`);
  } catch (error) {
    console.error(error.message);
    process.exitCode = error.exitCode ?? 1;
  }
}
