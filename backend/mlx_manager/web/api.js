// The server's calls. An answer is JSON; an error is a Problem, with what happened and the next step in words.

import { saw } from "./clock.js";
import { texts } from "./texts.js";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? texts.problem.unknown(status));
    this.status = status;
    this.code = body.code ?? "unknown";
    this.advice = body.advice ?? "";
    this.download = body.download ?? null;
  }
}

// Nobody answered: the server is gone, or silent for too long.
export class Unreachable extends Problem {
  constructor() {
    super(0, { code: "unreachable", detail: texts.problem.unreachable, advice: texts.problem.unreachableAdvice });
  }
}

export async function call(method, path, { body, signal, timeout = 60_000, keepalive = false } = {}) {
  const asked = Date.now();
  const signals = [AbortSignal.timeout(timeout), ...(signal ? [signal] : [])];
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any(signals),
      keepalive,
      cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (error instanceof TypeError || error.name === "TimeoutError" || error.name === "AbortError") throw new Unreachable();
    throw error;
  }
  saw(response.headers.get("Date"), asked, Date.now());
  let answer = null;
  try {
    answer = text === "" ? null : JSON.parse(text);
  } catch {
    throw new Problem(response.status, { detail: texts.problem.noJson(path) });
  }
  if (!response.ok) throw new Problem(response.status, answer ?? {});
  return answer;
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, body, options) => call("POST", path, { body, ...options });
export const put = (path, body, options) => call("PUT", path, { body, ...options });
export const del = (path, options) => call("DELETE", path, options);

// ORG/MODEL as a path: each part is escaped, the slash stays.
export function modelPath(modelId) {
  return modelId.split("/").map(encodeURIComponent).join("/");
}

export function withQuery(path, values) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "" && one !== false) query.append(name, String(one));
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}
