// A choice of bandwidth: a few sensible ones, or any other.

import { rate } from "../format.js";
import { announce } from "../milestones.js";
import { notice, state, changed } from "../store.js";
import { texts } from "../texts.js";
import { html, live } from "./html.js";

const t = texts.cap;
const CHOICES = [1e6, 2e6, 5e6, 10e6, 25e6, 50e6, 100e6];

// `key` tells one choice from another; `bps` is what holds now: null for no cap, undefined while it is not known.
export function capChoice(key, bps, set) {
  const id = `cap-${key}`;
  const editing = state.open.has(id);
  const values = bps && !CHOICES.includes(bps) ? [...CHOICES, bps].sort((a, b) => a - b) : CHOICES;
  const choose = (event) => {
    const value = event.target.value;
    if (value === "other") {
      state.open.add(id);
      changed();
      requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`${id}-own`)?.focus()));
      return;
    }
    set(value === "" ? null : Number(value));
  };
  const own = (event) => {
    event.preventDefault();
    const given = Number(new FormData(event.target).get("rate"));
    if (!(given >= 0.01 && given <= 1e6)) {
      notice(t.wrong);
      return;
    }
    state.open.delete(id);
    set(Math.round(given * 1e6));
    announce(rate(given * 1e6));
  };
  const label = key === "all" ? t.label : t.labelOne;
  if (editing) {
    return html`<form class="cap" @submit=${own}>
      <input id="${id}-own" class="cap-own" name="rate" type="number" min="0.01" step="any" inputmode="decimal" required aria-label="${label}, ${t.unit}">
      <span>${t.unit}</span>
      <button class="button small" type="submit">${t.set}</button>
    </form>`;
  }
  return html`<select class="cap" aria-label=${label} ?disabled=${bps === undefined} .value=${live(bps == null ? "" : String(bps))} @change=${choose}>
    <option value="" ?selected=${bps == null}>${t.none}</option>
    ${values.map((value) => html`<option value=${value} ?selected=${value === bps}>${rate(value)}</option>`)}
    <option value="other">${t.custom}</option>
  </select>`;
}
