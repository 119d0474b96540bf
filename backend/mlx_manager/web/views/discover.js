// What there is: search, filters, what is found, and the first minute of an empty library.

import { get, withQuery } from "../api.js";
import * as f from "../format.js";
import { keepLocalFresh } from "../local.js";
import { announce } from "../milestones.js";
import { fitWord } from "../parts/fit.js";
import { getButton } from "../parts/get.js";
import { html, live, nothing, repeat } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { loading, name, trouble } from "../parts/pieces.js";
import { replaceQuery } from "../router.js";
import { changed, state } from "../store.js";
import { texts } from "../texts.js";
import { load } from "./settings.js";

const t = texts.discover;
const PATIENCE_MS = 300;
const NAMED = /^(?:https?:\/\/[^/]+\/)?([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)\/?$/;
const FILTERS = ["fits", "quant", "params", "max_size_bytes", "capability", "licence", "gated", "family", "author", "task", "mlx"];

let timer = null;
let asking = null;

export function enterDiscover(route) {
  search(route.query);
  if (!state.starters?.value?.models.length) loadStarters();
  if (!state.machine?.value) load("machine", "/api/machine");
}

const loadStarters = () => load("starters", "/api/starters");

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
      <p class="lead">${first && state.starters?.value?.models.length ? texts.welcome.lead : t.lead}</p>
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

// Nothing is here yet, so three models that run on this machine, with one button each.
function welcome() {
  const { value, error } = state.starters ?? {};
  if (error) return html`<div class="welcome">${trouble(error, loadStarters)}</div>`;
  const models = value?.models ?? [];
  if (models.length === 0) return nothing;
  return html`<section class="welcome" aria-label=${texts.welcome.label}>
    <ul class="starters">${models.map((model, i) => html`<li class="starter" data-keep="starter ${model.model_id}">
      <p class="starter-kind">${texts.welcome.kinds[Math.min(i, texts.welcome.kinds.length - 1)]}</p>
      <h2>${name(model.model_id)}</h2>
      <p class="hit-facts">
        ${model.params === null ? nothing : html`<span>${texts.hit.parameters(f.parameters(model.params))}</span>`}
        ${model.quant ? html`<span>${model.quant.label}</span>` : nothing}
      </p>
      <p>${fitWord(model.fit)}</p>
      ${getButton(model.model_id, model.local, { big: true, size: model.size_bytes, gated: Boolean(model.gated) })}
    </li>`)}</ul>
    ${state.machine?.value ? html`<p class="muted">${state.machine.value.text}</p>` : nothing}
  </section>`;
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
    ${select("max_size_bytes", query, [2e9, 5e9, 10e9, 20e9, 50e9].map((b) => [String(b), t.upTo(f.bytes(b))]), t.size, t.anySize)}
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

// A model as search tells it: the facts that decide, and one button.
function hit(m) {
  const size = m.size_bytes === null ? null : `${m.size_is_estimate ? `${texts.hit.about} ` : ""}${f.bytes(m.size_bytes)}`;
  const facts = [
    m.params === null ? null : texts.hit.parameters(f.parameters(m.params)),
    m.quant?.label ?? null,
    size,
    ...m.capabilities.map((one) => texts.capability[one] ?? one),
  ].filter((one) => one !== null);
  return html`<article class="hit" data-keep="hit ${m.model_id}" aria-label=${m.model_id}>
    <div class="hit-what">
      <h2>${name(m.model_id)}</h2>
      <p class="hit-facts">${facts.map((one) => html`<span>${one}</span>`)}</p>
    </div>
    <div class="hit-fit">${fitWord(m.fit)}${m.gated ? html`<span class="gated" title=${texts.hit.gatedWhy}>${icon("lock")}${texts.hit.gated}</span>` : nothing}</div>
    <p class="hit-said">
      ${m.downloads === null ? nothing : html`<span title=${f.exact(m.downloads)}>${texts.hit.downloads(f.count(m.downloads))}</span>`}
      ${m.updated_at ? html`<span>${texts.hit.updated(f.ago((Date.now() - Date.parse(m.updated_at)) / 1000))}</span>` : nothing}
    </p>
    <div class="hit-get">${getButton(m.model_id, m.local, { gated: Boolean(m.gated) })}</div>
  </article>`;
}

function age(found) {
  if (!found.as_of) return nothing;
  const seconds = found.age_s + (Date.now() - found.told) / 1000;
  return html`<p class="asof ${found.stale ? "warn" : ""}">${found.stale ? t.stale(f.ago(seconds)) : t.asOf(f.ago(seconds))}${found.note ? html` ${found.note}` : nothing}</p>`;
}
