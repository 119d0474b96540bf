// What is here, whoever brought it: size, commits, whole or not, how to use it, and how to be rid of it.

import { del, get, modelPath, withQuery } from "../api.js";
import { since } from "../clock.js";
import * as f from "../format.js";
import { keepLocalFresh, loadLocal } from "../local.js";
import { announce } from "../milestones.js";
import { download, inFlight } from "../moves.js";
import { html, live, nothing, repeat } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { closeDialog, dialogButtons, foldId, loading, name, openDialog, paste, trouble, unfold } from "../parts/pieces.js";
import { askSystem } from "../live.js";
import { replaceQuery } from "../router.js";
import { changed, notice, state } from "../store.js";
import { texts } from "../texts.js";
import { stateWord } from "./downloads.js";

const t = texts.library;
// Lines to paste into a shell are made of these alone: a folder in the cache may be called anything.
const PLAIN_ID = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/;

export function enterLibrary() {
  loadLocal();
}

const ORDERS = {
  changed: (a, b) => Date.parse(b.modified_at) - Date.parse(a.modified_at),
  name: (a, b) => a.model_id.localeCompare(b.model_id),
  size: (a, b) => b.size_bytes - a.size_bytes,
  used: (a, b) => Date.parse(b.last_used_at ?? 0) - Date.parse(a.last_used_at ?? 0),
};

export function library() {
  keepLocalFresh();
  const { value, error } = state.local;
  const query = state.route.query;
  const wanted = (query.get("q") ?? "").toLowerCase();
  const order = ORDERS[query.get("sort")] ?? ORDERS.changed;
  const all = value?.models ?? [];
  const shown = all.filter((one) => one.model_id.toLowerCase().includes(wanted)).sort(order);
  return html`<header class="view-head">
      <h1 tabindex="-1">${t.title}</h1>
      <p class="lead">${value ? t.lead(all.length, f.bytes(value.size_bytes ?? all.reduce((sum, one) => sum + one.size_bytes, 0))) : t.leadUnknown}
        ${state.system?.cache.free_bytes != null ? t.free(f.bytes(state.system.cache.free_bytes)) : nothing}</p>
    </header>
    ${error ? trouble(error, loadLocal) : nothing}
    ${!value && !error ? loading() : nothing}
    ${all.length > 0 ? tools(query) : nothing}
    ${value && all.length === 0 ? empty() : nothing}
    ${all.length > 0 && shown.length === 0 ? html`<div class="empty"><h2>${t.noMatch}</h2></div>` : nothing}
    <ul class="rows shelf">${repeat(shown, (one) => one.model_id, (one) => html`<li>${book(one)}</li>`)}</ul>`;
}

const set = (name, value) => {
  const query = new URLSearchParams(state.route.query);
  if (value) query.set(name, value);
  else query.delete(name);
  replaceQuery(query);
};

const tools = (query) => html`<form role="search" class="search shelf-tools" @submit=${(event) => event.preventDefault()}>
  <div class="search-field">${icon("discover")}<input type="search" aria-label=${t.find} placeholder=${t.find} .value=${live(query.get("q") ?? "")} @input=${(event) => set("q", event.target.value)}></div>
  <label class="filter filter-sort"><span>${texts.discover.sort}</span>
    <select .value=${live(query.get("sort") ?? "changed")} @change=${(event) => set("sort", event.target.value)}>
      ${t.sorts.map(([one, word]) => html`<option value=${one} ?selected=${one === (query.get("sort") ?? "changed")}>${word}</option>`)}
    </select></label>
</form>`;

const empty = () => html`<section class="empty">${icon("library")}<h2>${t.none}</h2><p>${t.noneLead}</p>
  <p><a class="button primary" data-view href="/discover">${texts.downloads.find}</a></p></section>`;

function book(m) {
  const key = `book ${m.model_id}`;
  const open = state.open.has(key);
  const running = inFlight(m.model_id);
  return html`<article class="row book" data-keep="book ${m.model_id}" aria-label=${m.model_id}>
    <div class="row-head">
      <h2>${name(m.model_id)}</h2>
      ${running ? html`<a data-view href="/downloads">${stateWord(running)}</a>`
        : m.complete ? html`<span class="state state-good">${icon("check")}${t.complete}</span>`
        : html`<span class="state state-warn"><i></i>${t.partial}</span>`}
      <div class="row-actions">
        ${!m.complete && !running ? html`<button type="button" class="button small" @click=${() => download(m.model_id, { preset: "mlx" })}>${icon("resume")}${t.goOn}<span class="unseen"> ${m.model_id}</span></button>` : nothing}
        ${running ? nothing : html`<button type="button" class="button small" @click=${() => askDelete(m.model_id)}>${icon("trash")}<span class="word">${t.remove}</span><span class="unseen"> ${m.model_id}</span></button>`}
        ${unfold(key, t.more, m.model_id)}
      </div>
    </div>
    <p class="figures">
      <span class="percent">${f.bytes(m.size_bytes - m.partial_bytes)}</span>
      ${m.partial_bytes > 0 ? html`<span class=${running ? "" : "warn"}>${t.partialBytes(f.bytes(m.partial_bytes))}</span>` : nothing}
      ${m.revisions.length > 1 ? html`<span>${t.commits(m.revisions.length)}</span>` : nothing}
      <span>${t.changed(f.ago(since(m.modified_at)))}</span>
      ${m.last_used_at ? html`<span>${t.used(f.ago(since(m.last_used_at)))}</span>` : nothing}
    </p>
    ${open ? html`<div class="details" id=${foldId(key)}>${m.complete && PLAIN_ID.test(m.model_id) ? lines(m) : nothing}${commits(m)}<p class="path"><span>${t.folder}</span> <code>${m.path}</code></p></div>` : nothing}
  </article>`;
}

const lines = (m) => html`<div class="pastes">
  ${paste(texts.use.mlx_lm, `mlx_lm.generate --model ${m.model_id} --prompt "Hello"`)}
  ${paste(texts.use.python, `from mlx_lm import load, generate\nmodel, tokenizer = load("${m.model_id}")\nprint(generate(model, tokenizer, prompt="Hello"))`)}
  ${paste(texts.use.hf, `hf download ${m.model_id}`)}
</div>`;

// Of an only commit the whole model is what would be deleted.
const several = (m) => m.revisions.length > 1;

const commits = (m) => html`<table class="table">
  <thead><tr><th scope="col">${t.commit}</th><th scope="col">${t.refs}</th><th scope="col" class="num">${t.files}</th><th scope="col" class="num">${t.size}</th><th scope="col">${t.state}</th>${several(m) ? html`<th scope="col"><span class="unseen">${t.remove}</span></th>` : nothing}</tr></thead>
  <tbody>${m.revisions.map((one) => html`<tr>
    <th scope="row"><code>${one.commit.slice(0, 12)}</code></th>
    <td>${one.refs.length > 0 ? html`<bdi>${one.refs.join(", ")}</bdi>` : "–"}</td>
    <td class="num">${one.files_total === null ? f.exact(one.files) : t.of(f.exact(one.files), f.exact(one.files_total))}</td>
    <td class="num">${f.bytes(one.size_bytes)}</td>
    <td>${one.complete ? t.complete : missing(one)}</td>
    ${several(m) ? html`<td><button type="button" class="button small" @click=${() => askDelete(m.model_id, one.commit)}>${icon("trash")}${t.remove}<span class="unseen"> ${one.commit.slice(0, 12)}</span></button></td>` : nothing}
  </tr>`)}</tbody>
</table>`;

const missing = (one) =>
  one.missing_files > 0
    ? html`<details class="missing"><summary>${t.missing(one.missing_files, one.missing_bytes)}</summary>
        <ul>${one.missing.map((path) => html`<li><bdi>${path}</bdi></li>`)}</ul></details>`
    : t.partial;

// The plan first: what is freed, what stays because another commit needs it.
async function askDelete(modelId, revision = null) {
  const about = { plan: null, error: null, busy: false };
  openDialog(t.removeTitle, () => deleteBody(modelId, revision, about));
  try {
    about.plan = await get(withQuery(`/api/models/local/${modelPath(modelId)}/delete`, { revision }));
  } catch (error) {
    if (error.status === undefined) throw error;
    about.error = error;
  }
  changed();
}

function deleteBody(modelId, revision, about) {
  const { plan, error, busy } = about;
  const go = async () => {
    about.busy = true;
    changed();
    try {
      const done = await del(withQuery(`/api/models/local/${modelPath(modelId)}`, { revision }));
      closeDialog();
      notice(t.removed(modelId, f.bytes(done.freed_bytes)), "", "note");
      announce(t.removed(modelId, f.bytes(done.freed_bytes)));
      loadLocal();
      askSystem();
    } catch (problem) {
      if (problem.status === undefined) throw problem;
      about.error = problem;
    }
    about.busy = false;
    changed();
  };
  return html`<p><strong>${name(modelId, { link: false })}</strong>${revision ? html` <code>${revision.slice(0, 12)}</code>` : nothing}</p>
    ${error ? trouble(error) : nothing}
    ${!plan && !error ? loading() : nothing}
    ${plan ? html`<dl class="plan">
        <div><dt>${t.frees}</dt><dd>${f.bytes(plan.freed_bytes)} <small>${f.plural(plan.files, "file")}</small></dd></div>
        ${plan.shared_bytes > 0 ? html`<div><dt>${t.stays}</dt><dd>${f.bytes(plan.shared_bytes)} <small>${t.staysWhy}</small></dd></div>` : nothing}
      </dl>
      ${plan.blocked ? html`<p class="warn">${plan.blocked}</p>` : nothing}
      ${plan.note ? html`<p class="muted">${plan.note}</p>` : nothing}` : nothing}
    ${dialogButtons(plan && !plan.blocked ? html`<button type="button" class="button danger" ?disabled=${busy} @click=${go}>${icon("trash")}${busy ? t.removing : t.removeNow}</button>` : nothing)}`;
}
