// What is happening: every download, what all of them together take, and what may be asked of each.

import { get, modelPath } from "../api.js";
import { now, since } from "../clock.js";
import * as f from "../format.js";
import { ACTIVE, ENDED, loadOlder } from "../live.js";
import { totals } from "../milestones.js";
import { cancelSoon, download, pause, resume, setCap, undoCancel } from "../moves.js";
import { bar, curve, thinBar } from "../parts/bar.js";
import { capChoice } from "../parts/cap.js";
import { html, nothing, repeat } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { foldId, loading, name, ticked, told, unfold } from "../parts/pieces.js";
import { changed, state } from "../store.js";
import { texts } from "../texts.js";

const t = texts.downloads;
const RESTING = new Set(["paused", "failed"]);
const FRESH_S = 2;
const MOST_FILES = 200;
const TROUBLED = new Set(["stalled", "retrying", "rate_limited", "waiting_for_hub", "disk_full", "waiting_for_lock"]);

export function downloads() {
  const all = [...state.downloads.values()];
  const going = all.filter((one) => !ENDED.has(one.status) && one.status !== "paused").sort(byTurn);
  const resting = all.filter((one) => RESTING.has(one.status)).sort(byAge);
  const ended = all.filter((one) => one.status === "completed" || one.status === "cancelled").sort(byEnd);
  return html`<header class="view-head">
      <h1 tabindex="-1">${t.title}</h1>
      <p class="lead">${t.lead}</p>
    </header>
    ${!state.loaded ? loading() : nothing}
    ${state.loaded && going.length + resting.length > 0 ? summary() : nothing}
    ${state.loaded && all.length === 0 ? empty() : nothing}
    ${section("now", t.now, going)} ${section("resting", t.resting, resting)} ${section("ended", t.ended, ended)}
    ${state.older ? html`<p class="more"><button type="button" class="button" @click=${() => loadOlder().catch(told)}>${t.older}</button></p>` : nothing}`;
}

const stamp = (moment) => (moment ? Date.parse(moment) : 0);
// Those that run stay in the order in which they were asked for; those in line stand behind them.
const byTurn = (a, b) =>
  (a.place ?? 0) - (b.place ?? 0) || stamp(a.created_at) - stamp(b.created_at) || (a.task_id < b.task_id ? -1 : 1);
const byAge = (a, b) => stamp(b.created_at) - stamp(a.created_at) || (a.task_id < b.task_id ? -1 : 1);
const byEnd = (a, b) => stamp(b.finished_at) - stamp(a.finished_at) || byAge(a, b);

function section(id, heading, list) {
  if (list.length === 0) return nothing;
  return html`<section class="group" aria-labelledby="h-${id}">
    <h2 id="h-${id}">${heading} <span class="tally">${list.length}</span></h2>
    <ul class="rows">
      ${repeat(list, (one) => one.task_id, (one) => html`<li>${row(one)}</li>`)}
    </ul>
  </section>`;
}

const empty = () => html`<section class="empty">
  ${icon("downloads")}
  <h2>${t.none}</h2>
  <p>${t.noneLead}</p>
  <p><a class="button primary" data-view href="/discover">${t.find}</a></p>
</section>`;

function summary() {
  const all = totals();
  const { free_bytes: free, queue_bytes: queue } = state.system?.cache ?? { free_bytes: null };
  const short = free !== null && queue > free;
  const left = state.system?.left ?? 0;
  // Partial files may own their room already; known only of what was to come when the server told of the room.
  const owned = all.left > 0 && all.left <= left && queue < 0.9 * left;
  const room = [short || queue > Math.max(1e6, left / 100) ? t.queue(queue) : "", owned ? t.setAside : ""].filter(Boolean).join("; ");
  return html`<dl class="summary">
    <div>
      <dt>${t.totalRate}</dt>
      <dd>${all.speed > 0 ? f.rate(all.speed) : html`<span class="muted">${t.atRest}</span>`}</dd>
    </div>
    <div>
      <dt>${t.left}</dt>
      <dd>${f.bytes(all.left)} ${all.unknown > 0 ? html`<small>${t.leftMore(all.unknown)}</small>` : nothing}</dd>
    </div>
    <div>
      <dt>${t.room}</dt>
      <dd>${free === null ? html`<span class="muted">${t.roomUnknown}</span>` : html`${f.bytes(free)} ${room ? html`<small class=${short ? "warn" : ""}>${room}</small>` : nothing}`}</dd>
    </div>
    <div>
      <dt>${t.cap}</dt>
      <dd>${capChoice("all", state.limits?.bandwidth_bps, (bps) => setCap(bps))}</dd>
    </div>
  </dl>
  ${short ? html`<p class="callout callout-warn short">${icon("warn")}<span>${t.short(queue - free)} <a data-view href="/library?sort=size">${t.makeRoom}</a></span></p>` : nothing}`;
}

// One of them: what it is doing, in words and figures.
function row(d) {
  const undo = state.undo.get(d.task_id);
  const ended = d.status === "completed" || d.status === "cancelled";
  return html`<article class="row ${ended ? "row-ended" : ""} ${undo ? "row-leaving" : ""}" aria-labelledby="n-${d.task_id}" data-keep=${d.task_id} data-status=${d.status}>
    <div class="row-head">
      <h3 id="n-${d.task_id}">${name(d.model_id)}${d.revision === "main" ? nothing : html` <span class="rev">@<bdi>${shortened(d.revision)}</bdi></span>`}</h3>
      ${stateWord(d)}
      <div class="row-actions">${undo ? undoing(d, undo) : actions(d)} ${d.status === "cancelled" ? nothing : unfold(`row ${d.task_id}`, t.details, d.model_id)}</div>
    </div>
    ${ended || isUnbegun(d) ? nothing : bar(d)}
    ${figures(d)}
    ${message(d)}
    ${d.error ? errorBox(d) : nothing}
    ${d.status === "cancelled" ? nothing : details(d)}
  </article>`;
}

// It failed before anything was known of it.
const isUnbegun = (d) => d.status === "failed" && d.total_bytes === 0;

const shortened = (revision) => (/^[0-9a-f]{40}$/.test(revision) ? revision.slice(0, 10) : revision);

export function stateWord(d) {
  const word = ACTIVE.has(d.status) ? (texts.phase[d.phase] ?? texts.status[d.status]) : texts.status[d.status];
  const kind =
    d.status === "failed" || d.phase === "disk_full" ? "bad"
    : d.status === "completed" ? "good"
    : ACTIVE.has(d.status) ? (TROUBLED.has(d.phase) ? "warn" : "on")
    : "off";
  return html`<span class="state state-${kind}">${d.status === "completed" ? icon("check") : html`<i></i>`}${word}</span>`;
}

const FAILED = { resume: "retry", cancel: "discard" };

// Never switched off: a button that is would lose the focus. It says that it waits, and does nothing meanwhile.
function button(d, what, glyph, act) {
  const asked = state.moving.get(d.task_id);
  const idle = asked !== undefined || state.link.server === "gone";
  const word = asked === what ? t.moving[what] : t[d.status === "failed" ? FAILED[what] : what];
  return html`<button type="button" class="button small" data-do=${what} aria-disabled=${idle ? "true" : "false"} @click=${() => idle || act()}>
    ${icon(glyph)}<span class="word">${word}</span><span class="unseen"> ${d.model_id}</span>
  </button>`;
}

function actions(d) {
  const id = d.task_id;
  const pauseIt = () => button(d, "pause", "pause", () => pause(id));
  const resumeIt = () => button(d, "resume", d.status === "failed" ? "retry" : "resume", () => resume(id));
  const cancelIt = () => button(d, "cancel", "cancel", () => cancelSoon(id));
  if (d.status === "cancelled") return again(d);
  if (d.status === "completed") return nothing;
  if (d.status === "paused" || d.status === "failed") return html`${resumeIt()}${cancelIt()}`;
  return html`${pauseIt()}${cancelIt()}`;
}

const again = (d) => {
  const { revision, allow_patterns, ignore_patterns } = d;
  return html`<button type="button" class="button small" data-do="again" ?disabled=${state.moving.has(`download ${d.model_id}`)}
    @click=${() => download(d.model_id, { revision, allow_patterns: allow_patterns ?? undefined, ignore_patterns: ignore_patterns ?? undefined })}>
    ${icon("downloads")}<span class="word">${t.again}</span><span class="unseen"> ${d.model_id}</span></button>`;
};

function undoing(d, until) {
  const left = Math.max(1, Math.ceil((until - Date.now()) / 1000));
  return html`<span class="undo-text">${t.cancelling(left)}</span>
    <button type="button" class="button small primary" data-do="undo" @click=${() => undoCancel(d.task_id)}>${icon("undo")}${t.undo}<span class="unseen"> ${d.model_id}</span></button>`;
}

function figures(d) {
  if (d.status === "cancelled" || isUnbegun(d)) return nothing;
  if (d.status === "completed") {
    return html`<p class="figures"><span>${f.bytes(d.total_bytes)}</span><span>${f.plural(d.files_total, "file")}</span>
      ${d.finished_at ? html`<span title=${new Date(d.finished_at).toLocaleString()}>${f.ago(since(d.finished_at))}</span>` : nothing}</p>`;
  }
  const known = d.total_bytes > 0;
  const moving = d.status === "downloading" && d.speed_bps > 0;
  return html`<p class="figures">
    ${known ? html`<span class="percent">${f.percent(d.progress)}</span>` : nothing}
    <span>${known ? html`${t.ofTotal(d.downloaded_bytes, d.total_bytes)}${d.total_is_estimate ? html` <em>${t.estimate}</em>` : nothing}` : t.sizeUnknown}</span>
    ${moving ? html`<span class="rate">${f.rate(d.speed_bps)}</span>` : nothing}
    ${d.eta_s !== null && ACTIVE.has(d.status) ? html`<span>${t.eta(d.eta_s)}</span>` : nothing}
    ${d.last_byte_age_s !== null && d.last_byte_age_s >= FRESH_S ? html`<span class="warn">${t.byteAge(d.last_byte_age_s)}</span>` : nothing}
    ${d.reused_bytes > 0 ? html`<span class="here">${t.here(d.reused_bytes)}</span>` : nothing}
    ${ACTIVE.has(d.status) ? curve(state.curves.get(d.task_id)) : nothing}
  </p>`;
}

// The server's sentence: what it does or waits for, and what comes next. Where a time is set for that and the sentence
// does not count down itself, the page does.
const COUNTS = /\bin (?:\d|less than)/;

function message(d) {
  if (d.error || d.message === "") return nothing;
  const waits = ACTIVE.has(d.status) && TROUBLED.has(d.phase);
  const left = ACTIVE.has(d.status) && d.deadline && !COUNTS.test(d.message) ? Math.ceil((Date.parse(d.deadline) - now()) / 1000) : null;
  return html`<p class="message ${waits ? "warn" : ""}"><span>${d.message}</span>${left !== null ? html` <span class="when">${t.until(left)}</span>` : nothing}</p>`;
}

// What the model's own view leads through.
const BARRED = new Set(["gated_model", "access_denied", "token_missing", "token_rejected"]);

const errorBox = (d) => html`<div class="callout callout-bad">
  ${icon("warn")}
  <div><p><strong>${d.error}</strong></p>${d.advice ? html`<p>${ticked(d.advice)}</p>` : nothing}
    ${BARRED.has(d.error_code) ? html`<p><a data-view href="/models/${modelPath(d.model_id)}">${texts.get.how}</a></p>` : nothing}</div>
</div>`;

function details(d) {
  if (!state.open.has(`row ${d.task_id}`)) return nothing;
  refresh(d);
  return html`<div class="details" id=${foldId(`row ${d.task_id}`)}>${facts(d)}${files(d)}</div>`;
}

function facts(d) {
  const w = t.facts;
  const list = [
    [w.files, d.files_total ? w.filesOf(d.files_done, d.files_total) : null],
    [w.received, d.received_bytes ? f.bytes(d.received_bytes) : null],
    [w.reused, d.reused_bytes ? f.bytes(d.reused_bytes) : null],
    [w.connections, d.connections || null],
    [w.attempt, d.attempt > 1 ? d.attempt : null],
    [w.revision, html`<bdi>${d.revision}</bdi>`],
    [w.commit, d.commit ? html`<code>${d.commit.slice(0, 12)}</code>` : null],
    [w.only, d.allow_patterns ? html`<bdi>${d.allow_patterns.join(", ")}</bdi>` : null],
    [w.without, d.ignore_patterns ? html`<bdi>${d.ignore_patterns.join(", ")}</bdi>` : null],
    [w.started, d.started_at ? new Date(d.started_at).toLocaleString() : null],
    [w.task, html`<code>${d.task_id}</code>`],
  ].filter(([, value]) => value !== null);
  const capped = !ENDED.has(d.status) && state.caps.has(d.task_id);
  return html`<dl class="facts">
    ${list.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}
    ${capped ? html`<div><dt>${t.cap}</dt><dd>${capChoice(d.task_id, state.caps.get(d.task_id), (bps) => setCap(bps, d.task_id))}</dd></div>` : nothing}
  </dl>`;
}

const ORDER = { transferring: 0, hashing: 1, waiting: 2, done: 3 };

function files(d) {
  const list = state.files.get(d.task_id);
  if (!list || !ACTIVE.has(d.status)) return nothing;
  if (list.length === 0) return html`<p class="muted">${t.noFiles}</p>`;
  const sorted = list.length > MOST_FILES ? list.toSorted((a, b) => ORDER[a.state] - ORDER[b.state]).slice(0, MOST_FILES) : list;
  return html`${list.length > MOST_FILES ? html`<p class="muted">${t.mostFiles(MOST_FILES, list.length)}</p>` : nothing}
    <table class="table files">
      <thead><tr><th scope="col">${t.file}</th><th scope="col" class="num">${t.fileSize}</th><th scope="col">${t.fileStatus}</th></tr></thead>
      <tbody>${repeat(sorted, (file) => file.path, fileRow)}</tbody>
    </table>`;
}

const fileRow = (file) => html`<tr>
  <th scope="row"><bdi>${file.path}</bdi></th>
  <td class="num">${file.state === "transferring" ? t.ofTotal(file.done_bytes, file.size) : f.bytes(file.size)}</td>
  <td>${file.state === "transferring" ? thinBar(file.size ? file.done_bytes / file.size : 1) : nothing}${t.fileState[file.state] ?? file.state}</td>
</tr>`;

const askedAt = new Map();

// The files of a row that is open, once a second, for as long as it is open.
function refresh(d) {
  const id = d.task_id;
  if (state.link.server === "gone" || Date.now() - (askedAt.get(id) ?? 0) < 1000) return;
  const first = !askedAt.has(id);
  if (!first && !ACTIVE.has(d.status)) return;
  askedAt.set(id, Date.now());
  const path = `/api/models/download/${encodeURIComponent(id)}`;
  const ask = async () => {
    if (first && !ENDED.has(d.status)) state.caps.set(id, (await get(`${path}/limit`)).bandwidth_bps);
    state.files.set(id, (await get(`${path}/status?files=true`)).files);
    changed();
  };
  // Nobody asked for this one by hand; that the server is gone is said elsewhere.
  ask().catch((error) => error.code === "unreachable" || told(error));
}
