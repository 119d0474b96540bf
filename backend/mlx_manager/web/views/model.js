// One model: will it run, what is in it, what of it is here, and one button.

import { get, modelPath, post, withQuery } from "../api.js";
import * as f from "../format.js";
import { keepLocalFresh } from "../local.js";
import { fitFigures, fitWord } from "../parts/fit.js";
import { gate, getButton } from "../parts/get.js";
import { card } from "../parts/card.js";
import { html, live, nothing } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { foldId, loading, name, paste, trouble, unfold } from "../parts/pieces.js";
import { replaceQuery } from "../router.js";
import { changed, state } from "../store.js";
import { texts } from "../texts.js";

const t = texts.model;
const CONTEXTS = [2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144];
const MOST_FILES = 300;

export function enterModel(route) {
  if (state.local) state.local.old = true;
  load(route.model, route.query);
}

const again = () => load(state.route.model, state.route.query);

async function load(id, query, followed = null) {
  const revision = query.get("revision");
  const { info: before, fit, plan, ...last } = state.model?.id === id ? state.model : { info: null, fit: null };
  const mine = { id, revision, info: before, fit, plan: last.revision === revision ? plan : null, followed, error: null, busy: true };
  state.model = mine;
  changed();
  try {
    const info = await get(withQuery(`/api/models/info/${modelPath(id)}`, { revision, context: query.get("context") }));
    if (state.model !== mine) return;
    mine.info = info;
    // Another context may have been chosen meanwhile.
    if (!mine.fit || state.route.query.get("context") === query.get("context")) mine.fit = info.fit;
  } catch (error) {
    if (error.status === undefined) throw error;
    mine.error = error;
  }
  mine.busy = false;
  changed();
  if (mine.info && !mine.error && !isLocked(mine.info)) await loadPlan(mine, revision);
}

// What of a model is here, in short.
const inShort = (local) => (local ? [local.complete, local.size_bytes, local.partial_bytes, local.revisions.length].join() : "");

// The library was read again and tells otherwise than this view does: ask again, once for each thing that it tells.
function followLibrary(it) {
  if (!it?.info || it.busy || !state.local?.value || state.local.busy) return;
  const now = inShort(state.local.value.models.find((one) => one.model_id === it.id));
  if (now !== inShort(it.info.local) && now !== it.followed) load(it.id, state.route.query, now);
}

// Nobody may fetch it yet, so there is nothing to plan.
const isLocked = (m) => m.access !== "open" && m.access !== "granted";

// What the Hub says no to for good: to a button it would say the same.
const REFUSED = new Set([401, 403, 404]);

async function loadPlan(mine, revision) {
  try {
    const body = { model_id: mine.id, preset: "mlx", ...(revision ? { revision } : {}) };
    mine.plan = await post("/api/models/plan", body);
  } catch (error) {
    if (error.status === undefined) throw error;
    Object.assign(mine, { plan: null, planError: error });
  }
  changed();
}

async function chooseContext(event) {
  const mine = state.model;
  const context = event.target.value;
  const query = new URLSearchParams(state.route.query);
  query.set("context", context);
  replaceQuery(query);
  // Of two quick choices the last one counts, whichever is answered first.
  const counts = () => state.model === mine && state.route.query.get("context") === context;
  try {
    const fit = await get(withQuery(`/api/models/fit/${modelPath(mine.id)}`, { revision: mine.revision, context }));
    if (counts()) Object.assign(mine, { fit, fitError: null });
  } catch (error) {
    if (error.status === undefined) throw error;
    if (counts()) mine.fitError = error;
  }
  changed();
}

export function model() {
  keepLocalFresh();
  const it = state.model;
  const id = state.route.model;
  const info = it?.info;
  const error = it?.error ?? it?.fitError;
  followLibrary(it);
  return html`<nav class="crumbs" aria-label=${t.back}><a data-view href="/discover">← ${texts.nav.discover}</a></nav>
    <header class="view-head model-head">
      <h1 tabindex="-1">${name(id, { link: false })}</h1>
      ${info ? html`<p class="hit-facts">${headFacts(info).map((one) => html`<span>${one}</span>`)}</p>` : nothing}
    </header>
    ${error ? trouble(error, again) : nothing}
    ${!info && it?.busy ? loading() : nothing}
    ${info ? body(it, info) : nothing}`;
}

const headFacts = (m) =>
  [
    m.params === null ? null : texts.hit.parameters(f.parameters(m.params)),
    m.quant?.label,
    m.architecture,
    m.context_length ? t.context(f.tokens(m.context_length)) : null,
    m.licence,
    ...m.capabilities.map((one) => texts.capability[one] ?? one),
    m.downloads === null ? null : texts.hit.downloads(f.count(m.downloads)),
    m.updated_at ? texts.hit.updated(f.ago((Date.now() - Date.parse(m.updated_at)) / 1000)) : null,
  ].filter(Boolean);

function body(it, m) {
  const revision = state.route.query.get("revision");
  const here =
    revision ? (it.plan?.fetch_bytes === 0 && m.files.every((one) => one.here || !one.chosen) ? "complete" : null)
    : m.local ? (m.local.complete ? "complete" : "partial") : null;
  return html`${m.stale || m.note ? html`<p class="asof warn">${m.stale ? texts.discover.stale(f.ago(m.age_s)) : nothing} ${m.note ?? nothing}</p>` : nothing}
    <div class="model-top">
      <section class="panel" aria-labelledby="h-get">
        <h2 id="h-get">${t.get}</h2>
        ${isLocked(m) ? gate(m, again) : html`${planText(it)}
          ${REFUSED.has(it.planError?.status) && !here ? nothing : getButton(m.model_id, here, { big: true, size: it.plan?.fetch_bytes ?? m.size_bytes, options: revision ? { revision } : {} })}`}
        ${revisions(m)}
        <p class="links"><a href=${m.hub_url} target="_blank" rel="noopener noreferrer">${t.onHub}${icon("out")}</a></p>
      </section>
      <section class="panel" aria-labelledby="h-fit">
        <h2 id="h-fit">${t.fit} ${fitWord(it.fit)}</h2>
        <label class="field"><span>${t.chooseContext}</span>
          <select @change=${chooseContext} .value=${live(String(it.fit.context))}>
            ${contexts(m, it.fit).map((n) => html`<option value=${n} ?selected=${n === it.fit.context}>${t.tokens(f.tokens(n))}</option>`)}
          </select></label>
        ${fitFigures(it.fit)}
      </section>
    </div>
    ${variants(m)} ${use(m)} ${files(m)}
    <section class="group" aria-labelledby="h-card">
      <h2 id="h-card">${t.card}</h2>
      ${m.card_html ? card(m.card_html, t.cardOf(m.model_id)) : html`<p class="muted">${m.card_note ?? t.noCard}</p>`}
    </section>`;
}

const contexts = (m, fit) =>
  [...new Set([...CONTEXTS.filter((n) => !m.context_length || n <= m.context_length), fit.context, m.context_length ?? fit.context])].sort((a, b) => a - b);

function planText(it) {
  const p = it.plan;
  if (!p && it.error) return nothing; // said above
  if (!p) return it.planError ? trouble(it.planError, again) : html`<p class="muted">${t.planning}</p>`;
  return html`<dl class="plan">
      <div><dt>${t.fetch}</dt><dd>${f.bytes(p.fetch_bytes)} ${p.eta_s !== null ? html`<small>${t.takes(f.duration(p.eta_s))}</small>` : nothing}</dd></div>
      ${p.here_bytes > 0 ? html`<div><dt>${t.here}</dt><dd>${f.bytes(p.here_bytes)}</dd></div>` : nothing}
      <div><dt>${t.room}</dt><dd>${f.bytes(p.disk_free_bytes)} <small class=${p.enough_room ? "" : "bad"}>${p.enough_room ? t.after(f.bytes(p.disk_after_bytes)) : t.noRoom}</small></dd></div>
      ${p.left_out.length > 0 ? html`<div><dt>${t.leftOut}</dt><dd>${f.plural(p.left_out.length, "file")}, ${f.bytes(p.left_out.reduce((sum, one) => sum + (one.size ?? 0), 0))}</dd></div>` : nothing}
    </dl>
    ${p.note ? html`<p class="muted">${p.note}</p>` : nothing}`;
}

function revisions(m) {
  if (m.revisions.length < 2) return nothing;
  const choose = (event) => {
    const query = new URLSearchParams(state.route.query);
    if (event.target.value === "main") query.delete("revision");
    else query.set("revision", event.target.value);
    replaceQuery(query);
    load(m.model_id, query);
  };
  return html`<label class="field"><span>${t.revision}</span>
    <select @change=${choose} .value=${live(m.revision)}>
      ${m.revisions.map((one) => html`<option value=${one.name} ?selected=${one.name === m.revision}>${one.name}</option>`)}
    </select></label>`;
}

function variants(m) {
  if (m.variants.length === 0) return nothing;
  return html`<section class="group" aria-labelledby="h-variants">
    <h2 id="h-variants">${t.variants}</h2>
    <table class="table">
      <thead><tr><th scope="col">${t.variant}</th><th scope="col">${t.quant}</th><th scope="col" class="num">${t.size}</th><th scope="col">${t.fit}</th><th scope="col"><span class="unseen">${t.get}</span></th></tr></thead>
      <tbody>${m.variants.map((one) => html`<tr>
        <th scope="row">${name(one.model_id)}</th><td>${one.quant?.label ?? "–"}</td>
        <td class="num">${one.size_bytes === null ? "–" : html`${one.size_is_estimate ? `${texts.hit.about} ` : ""}${f.bytes(one.size_bytes)}`}</td>
        <td>${fitWord(one.fit)}</td><td>${getButton(one.model_id, one.local, { gated: Boolean(one.gated) })}</td>
      </tr>`)}</tbody>
    </table>
  </section>`;
}

const use = (m) =>
  m.use && m.local?.complete ? html`<section class="group" aria-labelledby="h-use"><h2 id="h-use">${texts.use.title}</h2>
    <div class="pastes">${paste(texts.use.mlx_lm, m.use.mlx_lm)}${paste(texts.use.python, m.use.python)}${paste(texts.use.hf, m.use.hf)}</div></section>` : nothing;

function files(m) {
  const key = `files ${m.model_id}`;
  const open = state.open.has(key);
  const shown = m.files.slice(0, MOST_FILES);
  return html`<section class="group files-of" aria-labelledby="h-files">
    <h2 id="h-files">${t.files} <span class="tally">${m.files.length}</span> ${unfold(key, t.files, m.model_id)}</h2>
    ${open ? html`<table class="table files" id=${foldId(key)}>
      <thead><tr><th scope="col">${texts.downloads.file}</th><th scope="col" class="num">${t.size}</th><th scope="col">${t.state}</th></tr></thead>
      <tbody>${shown.map((one) => html`<tr><th scope="row"><bdi>${one.path}</bdi></th><td class="num">${one.size === null ? "–" : f.bytes(one.size)}</td>
        <td>${one.here ? html`<span class="state state-good">${icon("check")}${t.fileHere}</span>` : one.chosen ? t.fileChosen : html`<span class="muted">${t.fileLeft}</span>`}</td></tr>`)}</tbody>
    </table>${m.files.length > shown.length ? html`<p class="muted">${t.moreFiles(m.files.length - shown.length)}</p>` : nothing}` : nothing}
  </section>`;
}
