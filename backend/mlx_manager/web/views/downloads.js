// What is happening: every download, and what all of them together take.

import { bytes, rate } from "../format.js";
import { ENDED, loadOlder } from "../live.js";
import { totals } from "../milestones.js";
import { setCap } from "../moves.js";
import { capChoice } from "../parts/cap.js";
import { html, nothing, repeat } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { loading, told } from "../parts/pieces.js";
import { state } from "../store.js";
import { texts } from "../texts.js";
import { row } from "./row.js";

const t = texts.downloads;
const RESTING = new Set(["paused", "failed"]);

export function downloads() {
  const all = [...state.downloads.values()];
  const now = all.filter((one) => !ENDED.has(one.status) && one.status !== "paused").sort(byTurn);
  const resting = all.filter((one) => RESTING.has(one.status)).sort(byAge);
  const ended = all.filter((one) => one.status === "completed" || one.status === "cancelled").sort(byEnd);
  return html`<header class="view-head">
      <h1 tabindex="-1">${t.title}</h1>
      <p class="lead">${t.lead}</p>
    </header>
    ${!state.loaded ? loading() : nothing}
    ${state.loaded && now.length + resting.length > 0 ? summary() : nothing}
    ${state.loaded && all.length === 0 ? empty() : nothing}
    ${section("now", t.now, now)} ${section("resting", t.resting, resting)} ${section("ended", t.ended, ended)}
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
  return html`<dl class="summary">
    <div>
      <dt>${t.totalRate}</dt>
      <dd>${all.speed > 0 ? rate(all.speed) : html`<span class="muted">${t.atRest}</span>`}</dd>
    </div>
    <div>
      <dt>${t.left}</dt>
      <dd>${bytes(all.left)} ${all.unknown > 0 ? html`<small>${t.leftMore(all.unknown)}</small>` : nothing}</dd>
    </div>
    <div>
      <dt>${t.room}</dt>
      <dd>${free === null ? html`<span class="muted">${t.roomUnknown}</span>` : html`${bytes(free)} ${queue > 0 ? html`<small class=${short ? "warn" : ""}>${t.queue(queue)}</small>` : nothing}`}</dd>
    </div>
    <div>
      <dt>${t.cap}</dt>
      <dd>${capChoice("all", state.limits?.bandwidth_bps, (bps) => setCap(bps))}</dd>
    </div>
  </dl>
  ${short ? html`<p class="callout callout-warn short">${icon("warn")}<span>${t.short(queue - free)} <a data-view href="/library?sort=size">${t.makeRoom}</a></span></p>` : nothing}`;
}
