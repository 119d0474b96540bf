// The news: one event stream for everything. Where it does not carry, the list is asked for instead, and the page says so.
//
// An answer never overwrites what the stream told after it was asked for: the stream is in order, an answer may be late.
// Silence is noticed by what the server promises: an active download is told of at least once a second.

import { get, withQuery } from "./api.js";
import { freeze } from "./clock.js";
import { tell, totals } from "./milestones.js";
import { changed, state } from "./store.js";

const SILENT_AFTER_MS = 3500;
const POLL_MS = 1000;
const SYSTEM_MS = 5000;
const REOPEN_MS = 3000;
const RATES_MS = 2000;
const ANSWER_MS = 4000;
const PAGE = 100;
export const ACTIVE = new Set(["starting", "downloading", "verifying"]);
export const ENDED = new Set(["completed", "failed", "cancelled"]);

let source = null;
let openedAt = 0;
let streamAt = 0; // when the stream said something
const toldAt = new Map(); // task_id → when the stream told of it last
let ratesAt = 0;
let polling = false;
let polledAt = 0;
let asking = false;
let systemAt = 0;
let systemTold = 0; // when the server answered how it stands
let life = null; // which life of the server the page knows

export function start() {
  open();
  poll();
  askSystem();
  setInterval(check, 500);
  document.addEventListener("visibilitychange", check);
  addEventListener("online", check);
}

function open() {
  source?.close();
  openedAt = Date.now();
  const mine = new EventSource("/api/events");
  source = mine;
  mine.onopen = () => {
    if (source !== mine) return;
    streamAt = Date.now();
    link("open");
    heard();
  };
  mine.onmessage = (message) => {
    if (source !== mine) return;
    streamAt = Date.now();
    link("open");
    heard();
    const snapshot = JSON.parse(message.data);
    toldAt.set(snapshot.task_id, streamAt);
    take(snapshot);
    changed();
  };
  // The browser connects again by itself and says where it stopped (Last-Event-ID); it gives up only on an answer that
  // is no stream, and then we go on.
  mine.onerror = () => {
    if (source !== mine) return;
    link("lost");
    check();
  };
}

function link(stream) {
  if (state.link.stream === stream) return;
  const before = state.link.stream;
  state.link.stream = stream;
  if (stream === "open" && before !== "connecting") {
    // What was missed comes with the stream; what is beside it is asked for.
    poll();
    askSystem();
  }
  changed();
}

function heard() {
  state.link.newsAt = Date.now();
  if (state.link.server !== "up") {
    const back = state.link.server === "gone";
    state.link.server = "up";
    freeze(null);
    if (back) tell("back");
    changed();
  }
}

function lostServer() {
  if (state.link.server === "gone") return;
  const first = state.link.server === "unknown";
  state.link.server = "gone";
  freeze(state.link.newsAt);
  if (!first) tell("gone");
  changed();
}

// Twice a second: is the stream as alive as it must be, and what is due?
function check() {
  const at = Date.now();
  const running = [...state.downloads.values()].some((one) => ACTIVE.has(one.status));
  const promised = running || (systemTold > streamAt && state.system.downloads.active > 0);
  if (state.link.stream === "open" && promised && at - streamAt > SILENT_AFTER_MS) link("silent");
  if (state.link.stream === "connecting" && at - openedAt > SILENT_AFTER_MS) link("silent");
  const carries = state.link.stream === "open" || (state.link.stream === "connecting" && at - openedAt < SILENT_AFTER_MS);
  if (!carries) {
    if (!polling && at - polledAt >= POLL_MS) poll();
    const dead = source.readyState === EventSource.CLOSED || state.link.stream === "silent";
    if (dead && at - openedAt > REOPEN_MS) reopen();
  }
  if (running && state.route.view === "downloads" && !document.hidden && at - ratesAt >= RATES_MS) askRates();
  if (!asking && at - systemAt >= (document.hidden ? 6 * SYSTEM_MS : SYSTEM_MS)) askSystem();
}

function reopen() {
  const before = state.link.stream;
  open();
  state.link.stream = before;
}

async function poll() {
  polling = true;
  polledAt = Date.now();
  const asked = polledAt;
  try {
    const page = await get(withQuery("/api/models/downloads", { limit: PAGE }), { timeout: ANSWER_MS });
    heard();
    for (const snapshot of page.downloads) takeAnswer(snapshot, asked);
    if (!state.loaded) state.older = page.next_cursor;
    state.loaded = true;
    changed();
  } catch (error) {
    failed(error);
  } finally {
    polling = false;
  }
}

export async function askSystem() {
  asking = true;
  systemAt = Date.now();
  try {
    const system = await get("/api/system", { timeout: 4 * ANSWER_MS });
    heard();
    const born = `${system.pid} ${system.started_at}`;
    if (life !== null && life !== born) await anotherLife();
    life = born;
    state.system = { ...system, left: totals().left }; // what was still to come then
    systemTold = Date.now();
    changed();
  } catch (error) {
    failed(error);
  } finally {
    asking = false;
  }
}

// The server was started anew: it may be another version, with another page.
async function anotherLife() {
  const answer = await fetch("/", { cache: "no-store" });
  const build = document.querySelector("meta[name=build]").content;
  if (answer.ok && !(await answer.text()).includes(`/page/${build}/`)) state.link.updated = true;
}

function failed(error) {
  if (error.code === "unreachable") {
    // While the stream still speaks, one answer that is late means nothing.
    if (state.link.stream !== "open" || Date.now() - streamAt > SILENT_AFTER_MS) lostServer();
  } else if (error.status === 401) {
    state.link.locked = true;
    changed();
  } else if (error.status === undefined) {
    throw error;
  }
}

// The next older downloads of the list.
export async function loadOlder() {
  const asked = Date.now();
  const page = await get(withQuery("/api/models/downloads", { limit: PAGE, cursor: state.older }));
  for (const snapshot of page.downloads) takeAnswer(snapshot, asked);
  state.older = page.next_cursor;
  changed();
}

// A download as an answer tells of it; `asked`: when that was asked for, in this browser's milliseconds.
export function takeAnswer(snapshot, asked) {
  if ((toldAt.get(snapshot.task_id) ?? 0) < asked) take(snapshot);
}

function take(snapshot) {
  const before = state.downloads.get(snapshot.task_id);
  state.downloads.set(snapshot.task_id, snapshot);
  if (before && before.status !== snapshot.status) tell(snapshot.status, snapshot);
  if (ENDED.has(snapshot.status) && before && !ENDED.has(before.status)) {
    if (state.local) state.local.old = true; // the library has changed
    askSystem();
  }
}

// How fast each was over the last while, as the server remembers it: another tab shows the same.
async function askRates() {
  ratesAt = Date.now();
  try {
    const { step_s: step, rates } = await get("/api/models/downloads/rates", { timeout: ANSWER_MS });
    state.curves = new Map(Object.entries(rates).map(([id, points]) => [id, { step, points }]));
    changed();
  } catch (error) {
    failed(error);
  }
}
