// The machine, the Hub, who one is there, and how this page looks.

import { call, get, put } from "../api.js";
import * as f from "../format.js";
import { loadCaps, setCap } from "../moves.js";
import { capChoice } from "../parts/cap.js";
import { html, nothing } from "../parts/html.js";
import { icon } from "../parts/icons.js";
import { told, ticked, trouble } from "../parts/pieces.js";
import { changed, notice, state } from "../store.js";
import { texts } from "../texts.js";

const t = texts.settings;

export function enterSettings() {
  load("account", "/api/hub/account");
  load("machine", "/api/machine");
  loadCaps().catch((error) => error.code === "unreachable" || told(error));
}

// What the server answers, as state[key]: its value, or the error that came instead.
export async function load(key, path) {
  try {
    state[key] = { value: null, ...state[key], value: await get(path), error: null };
  } catch (error) {
    if (error.status === undefined) throw error;
    state[key] = { value: null, error };
  }
  changed();
}

export function settings() {
  return html`<header class="view-head"><h1 tabindex="-1">${t.title}</h1></header>
    <div class="panels">${account()} ${hub()} ${limits()} ${look()} ${machine()} ${about()}</div>`;
}

const panel = (id, heading, body) => html`<section class="panel" aria-labelledby="h-${id}"><h2 id="h-${id}">${heading}</h2>${body}</section>`;
const facts = (list) => html`<dl class="facts">${list.filter(([, value]) => value !== null && value !== undefined).map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;

function account() {
  const { value, error } = state.account ?? {};
  const save = async (event) => {
    event.preventDefault();
    const form = event.target;
    const token = new FormData(form).get("token").trim();
    state.account = { ...state.account, busy: true };
    changed();
    try {
      state.account = { value: await put("/api/hub/token", { token }), error: null };
      notice(t.tokenKept, "", "note");
    } catch (problem) {
      state.account = { value: value ?? null, error: problem };
      if (problem.status === undefined) throw problem;
    } finally {
      form.reset(); // it is never shown again
      changed();
    }
  };
  const forget = async () => {
    try {
      await call("DELETE", "/api/hub/token");
    } catch (problem) {
      told(problem);
    }
    load("account", "/api/hub/account");
  };
  const who = value?.logged_in ? html`<p class="who">${icon("check")}<span>${t.you(html`<strong><bdi>${value.name}</bdi></strong>`)}</span></p>` : value && !value.error ? html`<p class="muted">${t.nobody}</p>` : nothing;
  return panel("token", t.account, html`${who}
    ${value?.error ? html`<div class="callout callout-warn">${icon("warn")}<div><p><strong>${value.error}</strong></p>${value.advice ? html`<p>${ticked(value.advice)}</p>` : nothing}</div></div>` : nothing}
    ${error ? trouble(error) : nothing}
    ${value?.token_source === "HF_TOKEN" ? html`<p class="muted">${t.fromEnvironment}</p>` : html`
      <form class="token" @submit=${save}>
        <label class="field"><span>${value?.logged_in ? t.newToken : t.token}</span>
          <input id="token" name="token" type="password" required autocomplete="off" spellcheck="false" placeholder="hf_…" aria-describedby="token-help"></label>
        <button type="submit" class="button primary" ?disabled=${state.account?.busy}>${t.test}</button>
        ${value?.token_source === "file" ? html`<button type="button" class="button" @click=${forget}>${t.forget}</button>` : nothing}
      </form>
      <p id="token-help" class="muted">${ticked(t.tokenHelp)} <a href="https://huggingface.co/settings/tokens" target="_blank" rel="noopener noreferrer">${t.tokenLink}${icon("out")}</a></p>`}`);
}

function hub() {
  const h = state.system?.hub;
  if (!h) return nothing;
  const [kind, word] = h.offline ? ["off", t.hubOffline] : h.reachable === null ? ["off", t.hubUnknown] : h.reachable ? ["good", t.hubUp] : ["bad", t.hubDown];
  return panel("hub", t.hub, html`<p class="who"><span class="state state-${kind}"><i></i>${word}</span></p>
    ${h.error ? html`<p class="warn">${h.error}</p>` : nothing}
    ${facts([
      [t.address, html`<bdi>${h.endpoint}</bdi>`],
      [t.latency, h.latency_ms === null ? null : `${Math.round(h.latency_ms)} ms`],
      [t.looked, h.age_s === null ? null : f.ago(h.age_s)],
    ])}`);
}

function limits() {
  const l = state.system?.limits;
  return panel("limits", t.limits, html`
    <div class="field"><span>${t.bandwidth}</span>${capChoice("all", state.limits?.bandwidth_bps, (bps) => setCap(bps))}</div>
    <p class="muted">${texts.cap.lasts}</p>
    ${l ? facts([
      [t.atOnce, l.max_downloads],
      [t.connections, l.connections_per_download],
      [t.stall, f.duration(l.stall_s)],
      [t.sizeCheck, f.duration(l.size_check_s)],
    ]) : nothing}`);
}

function look() {
  const root = document.documentElement;
  const now = root.dataset.theme ?? "system";
  const choose = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme);
    } catch {
      notice(t.themeNotKept, "", "note");
    }
    changed();
  };
  return panel("look", t.look, html`<fieldset class="choices"><legend class="unseen">${t.theme}</legend>
    ${["system", "light", "dark"].map((one) => html`<label><input type="radio" name="theme" value=${one} .checked=${one === now} @change=${() => choose(one)}><span>${t.themes[one]}</span></label>`)}
  </fieldset>`);
}

function machine() {
  const { value } = state.machine ?? {};
  const s = state.system;
  if (!s) return nothing;
  return panel("machine", t.machine, facts([
    [t.chip, value?.chip ?? value?.name],
    [t.memory, value?.memory_bytes ? f.bytes(value.memory_bytes) : null],
    [t.usable, value?.usable_bytes ? f.bytes(value.usable_bytes) : null],
    [t.cache, html`<code>${s.cache.path}</code>`],
    [t.free, s.cache.free_bytes === null ? html`<span class="warn">${s.cache.error}</span>` : f.bytes(s.cache.free_bytes)],
  ]));
}

function about() {
  const s = state.system;
  if (!s) return nothing;
  return panel("about", t.about, html`${facts([
      [t.version, s.version],
      [t.running, f.ago((Date.now() - Date.parse(s.started_at)) / 1000)],
      [t.dataDir, html`<code>${s.data_dir}</code>`],
      [t.log, html`<code>${s.log_file}</code>`],
      [t.platform, `${s.platform}, Python ${s.python}`],
    ])}
    <p class="links"><a href="/openapi.json">${t.api}</a></p>`);
}
