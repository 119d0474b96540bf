// What is on this machine, as the library tells it. A download that ended makes it old; whoever shows it asks anew.

import { get } from "./api.js";
import { changed, state } from "./store.js";

export async function loadLocal() {
  const before = state.local?.value ?? null;
  state.local = { value: before, error: null, busy: true };
  try {
    const value = await get("/api/models/local");
    state.local = { value, error: null, busy: false, old: state.local.old };
    state.here = new Map(value.models.map((one) => [one.model_id, one.complete ? "complete" : "partial"]));
  } catch (error) {
    if (error.status === undefined) throw error;
    state.local = { value: before, error, busy: false };
  }
  changed();
}

export function keepLocalFresh() {
  if (state.local === null || (state.local.old && !state.local.busy)) loadLocal();
}

// Whoever comes back to the page may have deleted something elsewhere.
addEventListener("focus", () => {
  if (!state.local || state.link.server === "gone") return;
  state.local.old = true;
  changed();
});

// complete, partial or null; `told` is what came with the model when it was searched for.
export const hereOf = (modelId, told) => (state.here ? (state.here.get(modelId) ?? null) : told);
