// What a person may ask of a download. Nothing is shown before the server has said it; until then the button waits.

import { call, get, post, put } from "./api.js";
import { ENDED, takeAnswer } from "./live.js";
import { announce } from "./milestones.js";
import { told } from "./parts/pieces.js";
import { changed, state } from "./store.js";
import { texts } from "./texts.js";

const UNDO_S = 5;
const CANCEL = (id) => `/api/models/download/${encodeURIComponent(id)}/cancel`;

export const pause = (id) => move(id, "pause");
export const resume = (id) => move(id, "resume");

async function move(id, what) {
  if (state.moving.has(id)) return;
  state.moving.set(id, what);
  changed();
  const asked = Date.now();
  try {
    takeAnswer(await post(`/api/models/download/${encodeURIComponent(id)}/${what}`), asked);
  } catch (error) {
    // The server's picture is another one: it comes with the refusal.
    if (error.download) takeAnswer(error.download, asked);
    told(error);
  } finally {
    state.moving.delete(id);
    changed();
  }
}

const timers = new Map();

// Cancel throws away what came, so it is asked for only after a few seconds in which it can be taken back.
export function cancelSoon(id) {
  if (state.undo.has(id)) return;
  state.undo.set(id, Date.now() + UNDO_S * 1000);
  timers.set(id, setTimeout(() => cancelNow(id), UNDO_S * 1000));
  announce(texts.downloads.cancelling(UNDO_S));
  changed();
}

export function undoCancel(id) {
  clearTimeout(timers.get(id));
  timers.delete(id);
  state.undo.delete(id);
  changed();
}

function cancelNow(id) {
  undoCancel(id);
  move(id, "cancel");
}

// Whoever leaves the page has not taken it back.
addEventListener("pagehide", () => {
  for (const id of timers.keys()) {
    clearTimeout(timers.get(id));
    call("POST", CANCEL(id), { keepalive: true }).catch(() => {});
  }
  timers.clear();
  state.undo.clear();
});

// Returns the task id, or null when it was refused; the person is told then.
export async function download(modelId, { revision, preset, allow_patterns, ignore_patterns } = {}) {
  const key = `download ${modelId}`;
  if (state.moving.has(key)) return null;
  state.moving.set(key, "again");
  changed();
  try {
    const accepted = await post("/api/models/download", { model_id: modelId, revision, preset, allow_patterns, ignore_patterns });
    const asked = Date.now();
    takeAnswer(await get(`/api/models/download/${accepted.task_id}/status`), asked);
    return accepted.task_id;
  } catch (error) {
    told(error);
    return null;
  } finally {
    state.moving.delete(key);
    changed();
  }
}

export async function loadCaps() {
  state.limits = await get("/api/limits");
  changed();
}

// Bytes per second or null for none; of one download, or of all.
export async function setCap(bps, id = null) {
  const path = id === null ? "/api/limits" : `/api/models/download/${encodeURIComponent(id)}/limit`;
  try {
    const answer = await put(path, { bandwidth_bps: bps });
    if (id === null) state.limits = answer;
    else state.caps.set(id, answer.bandwidth_bps);
  } catch (error) {
    told(error);
  }
  changed();
}

// The download of a model that is not ended, or null.
export function inFlight(modelId) {
  for (const one of state.downloads.values()) {
    if (one.model_id === modelId && !ENDED.has(one.status)) return one;
  }
  return null;
}
