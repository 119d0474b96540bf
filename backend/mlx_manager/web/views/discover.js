// What there is: search, filters, and the first minute of an empty library.

import { get, withQuery } from "../api.js";
import { ago, bytes } from "../format.js";
import { keepLocalFresh } from "../local.js";
import { announce } from "../milestones.js";
import { getButton } from "../parts/get.js";
import { hit } from "../parts/hit.js";
import { html, live, nothing, repeat } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { loading, trouble } from "../parts/pieces.js";
import { replaceQuery } from "../router.js";
import { changed, state } from "../store.js";
import { texts } from "../texts.js";
import { welcome } from "./welcome.js";

const t = texts.discover;
const PATIENCE_MS = 300;
const NAMED = /^(?:https?:\/\/[^/]+\/)?([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)\/?$/;
const FILTERS = ["fits", "quant", "params", "max_size_bytes", "capability", "licence", "gated", "family", "author", "task", "mlx"];

let timer = null;
let asking = null;

export function enterDiscover(route) {
  search(route.query);
  if (!state.starters) load("starters", "/api/starters");
  if (!state.machine) load("machine", "/api/machine");
}

async function load(key, path) {
  try {
    state[key] = { value: await get(path), error: null };
  } catch (error) {
    if (error.status === undefined) throw error;
    state[key] = { value: null, error };
  }
  changed();
}

const RANGES = { "-1": [null, 1e9], "1-4": [1e9, 4e9], "4-9": [4e9, 9e9], "9-20": [9e9, 20e9], "20-40": [20e9, 40e9], "40-": [40e9, null] };

function asked(query) {
  const values = Object.fromEntries(query);
  const [least, most] = RANGES[values.params] ?? [];
  delete values.params;
  return { ...values, quant: query.getAll("quant"), capability: query.getAll("capability"), min_params: least, max_params: most, limit: 30 };
}

async function search(query, cursor = null) {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const before = cursor ? state.search : { hits: state.search?.hits ?? [] };
  state.search = { ...before, busy: cursor ? "more" : "new", error: null };
  changed();
  try {
    const page = await get(withQuery("/api/models/search", { ...asked(query), cursor }), { signal: mine.signal });
    const known = new Set(cursor ? before.hits.map((one) => one.model_id) : []);
    const hits = cursor ? [...before.hits, ...page.models.filter((one) => !known.has(one.model_id))] : page.models;
    state.search = { ...page, hits, told: Date.now(), busy: null, error: null };
    announce(t.found(hits.length, page.next_cursor !== null));
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error.status === undefined) throw error;
    state.search = { ...state.search, busy: null, error };
  }
  changed();
}

function set(name, values) {
  const query = new URLSearchParams(state.route.query);
  query.delete(name);
  for (const value of values) if (value !== "") query.append(name, value);
  replaceQuery(query);
  clearTimeout(timer);
  timer = setTimeout(() => search(state.route.query), name === "q" ? PATIENCE_MS : 0);
}

export function discover() {
  keepLocalFresh();
  const query = state.route.query;
  const asks = query.get("q") ?? "";
  const filtered = FILTERS.filter((name) => query.has(name)).length;
  const first = asks === "" && filtered === 0 && state.local?.value?.models.length === 0;
  return html`<header class="view-head">
      <h1 tabindex="-1">${first ? texts.welcome.title : t.title}</h1>
      <p class="lead">${first ? texts.welcome.lead : t.lead}</p>
    </header>
    ${first ? welcome() : nothing}
    <form role="search" class="search" @submit=${(event) => { event.preventDefault(); set("q", [asks]); }}>
      <div class="search-field">${icon("discover")}
        <input type="search" aria-label=${t.label} placeholder=${t.placeholder} maxlength="200" autocomplete="off" spellcheck="false"
          .value=${live(asks)} @input=${(event) => set("q", [event.target.value])}>
        <kbd aria-hidden="true">/</kbd></div>
      ${filters(query, filtered)}
    </form>
    ${results(asks)}`;
}

const select = (name, query, choices, label, empty) => {
  const value = query.get(name) ?? "";
  return html`<label class="filter ${value === "" ? "" : "is-set"}"><span class="unseen">${label}</span>
    <select .value=${live(value)} @change=${(event) => set(name, [event.target.value])}>
      <option value="" ?selected=${value === ""}>${empty}</option>
      ${choices.map(([one, word]) => html`<option value=${one} ?selected=${one === value}>${word}</option>`)}
    </select></label>`;
};

const toggle = (name, query, value, word) => {
  const on = query.getAll(name).includes(value);
  const others = query.getAll(name).filter((one) => one !== value);
  return html`<button type="button" class="chip" aria-pressed=${on ? "true" : "false"} @click=${() => set(name, on ? others : [...others, value])}>${word}</button>`;
};

function filters(query, filtered) {
  const clear = () => {
    const q = query.get("q");
    replaceQuery(new URLSearchParams(q ? { q } : {}));
    search(state.route.query);
  };
  return html`<div class="filters" role="group" aria-label=${t.filters}>
    ${toggle("fits", query, "true", t.fits)}
    ${select("quant", query, t.quants, t.quant, t.anyQuant)}
    ${select("params", query, t.params, t.parameters, t.anyParameters)}
    ${select("max_size_bytes", query, [2e9, 5e9, 10e9, 20e9, 50e9].map((b) => [String(b), t.upTo(bytes(b))]), t.size, t.anySize)}
    ${select("licence", query, t.licences, t.licence, t.anyLicence)}
    ${select("gated", query, t.gates, t.gate, t.anyGate)}
    ${["vision", "tools", "thinking", "embedding", "audio"].map((one) => toggle("capability", query, one, texts.capability[one]))}
    ${toggle("mlx", query, "false", t.notOnlyMlx)}
    ${filtered > 0 ? html`<button type="button" class="quiet" @click=${clear}>${t.clear}</button>` : nothing}
    <label class="filter filter-sort"><span>${t.sort}</span>
      <select .value=${live(query.get("sort") ?? "")} @change=${(event) => set("sort", [event.target.value])}>
        ${t.sorts.map(([one, word]) => html`<option value=${one} ?selected=${one === (query.get("sort") ?? "")}>${word}</option>`)}
      </select></label>
  </div>`;
}

function results(asks) {
  const found = state.search;
  if (!found) return loading();
  const named = NAMED.exec(asks.trim())?.[1];
  const more = () => search(state.route.query, found.next_cursor);
  return html`<section aria-label=${t.results} aria-busy=${found.busy === "new" ? "true" : "false"} class="results ${found.busy === "new" ? "is-old" : ""}">
    ${named ? html`<p class="named">${t.named} <a data-view href="/models/${named}"><bdi>${named}</bdi></a> ${getButton(named, null)}</p>` : nothing}
    ${found.error ? trouble(found.error, () => search(state.route.query)) : nothing}
    ${found.hits.length > 0 || found.busy ? nothing : found.error ? nothing : html`<div class="empty"><h2>${t.none}</h2><p>${t.noneLead}</p></div>`}
    ${found.busy === "new" && found.hits.length === 0 ? loading() : nothing}
    <ul class="hits">${repeat(found.hits, (one) => one.model_id, (one) => html`<li>${hit(one)}</li>`)}</ul>
    ${found.next_cursor ? html`<p class="more"><button type="button" class="button" ?disabled=${found.busy !== null} @click=${more}>${t.more}</button></p>` : nothing}
    ${age(found)}
  </section>`;
}

function age(found) {
  if (!found.as_of) return nothing;
  const seconds = found.age_s + (Date.now() - found.told) / 1000;
  return html`<p class="asof ${found.stale ? "warn" : ""}">${found.stale ? t.stale(ago(seconds)) : t.asOf(ago(seconds))}${found.note ? html` ${found.note}` : nothing}</p>`;
}
