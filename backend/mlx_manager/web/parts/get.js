// The one button that gets a model, what it says at each moment of the way, and the gate before some.

import { modelPath } from "../api.js";
import { hereOf } from "../local.js";
import { download, inFlight } from "../moves.js";
import * as f from "../format.js";
import { state } from "../store.js";
import { texts } from "../texts.js";
import { html, nothing } from "./html.js";
import { icon } from "./icons.js";

const t = texts.get;

// `local`: complete, partial or null, as the server told with the model, or of the revision in `options`. `gated`: its
// own view leads through the gate.
export function getButton(modelId, local, { big = false, size = null, gated = false, options = {} } = {}) {
  const here = options.revision ? local : hereOf(modelId, local);
  const running = inFlight(modelId);
  const unseen = html`<span class="unseen"> ${modelId}</span>`;
  const shape = big ? "button primary big" : "button small";
  if (running) {
    const word = running.status === "downloading" ? f.percent(running.progress) : texts.status[running.status];
    return html`<a class="${shape} is-on" data-do="get" data-view href="/downloads">${icon("downloads")}<span>${word}</span>${unseen}</a>`;
  }
  if (here === "complete") {
    return html`<a class="${shape} is-here" data-do="get" data-view href="/library">${icon("check")}<span>${t.here}</span>${unseen}</a>`;
  }
  if (gated && here === null) {
    return html`<a class=${shape} data-do="get" data-view href="/models/${modelPath(modelId)}">${icon("lock")}<span>${t.ask}</span>${unseen}</a>`;
  }
  const idle = state.moving.has(`download ${modelId}`) || state.link.server === "gone";
  const word = here === "partial" ? t.goOn : size ? t.getSize(f.bytes(size)) : t.get;
  return html`<button type="button" class=${shape} data-do="get" aria-disabled=${idle ? "true" : "false"}
    @click=${() => idle || download(modelId, { preset: "mlx", ...options })}>${icon("downloads")}<span>${word}</span>${unseen}</button>`;
}

const w = texts.gate;

// Who stands at the gate, and the way through it, step by step.
export function gate(m, again) {
  const pending = m.access === "pending";
  const known = m.access !== "login"; // a token is here, and tells who asks
  return html`<div class="gate">
    <p>${icon("lock")}<strong>${pending ? w.pending : w.title}</strong></p>
    <ol>
      <li class=${known ? "is-done" : ""}>${known ? html`${icon("check")}${w.tokenHere}` : html`${w.token} <a data-view href="/settings#token">${w.toSettings}</a>`}</li>
      <li class=${pending ? "is-done" : ""}>${pending ? html`${icon("check")}${w.asked}` : w.ask}
        ${m.access_url ? html`<a href=${m.access_url} target="_blank" rel="noopener noreferrer">${w.askLink}${icon("out")}</a>` : nothing}</li>
      <li>${m.gated === "auto" ? w.auto : w.manual} <button type="button" class="button small" @click=${again}>${w.look}</button></li>
    </ol>
  </div>`;
}
