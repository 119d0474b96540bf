// A gated model: who stands at the gate, and the way through it, step by step.

import { texts } from "../texts.js";
import { html, nothing } from "./html.js";
import { icon } from "./icons.js";

const t = texts.gate;

export function gate(m, again) {
  const pending = m.access === "pending";
  const known = m.access !== "login"; // a token is here, and tells who asks
  return html`<div class="gate">
    <p>${icon("lock")}<strong>${pending ? t.pending : t.title}</strong></p>
    <ol>
      <li class=${known ? "is-done" : ""}>${known ? html`${icon("check")}${t.tokenHere}` : html`${t.token} <a data-view href="/settings#token">${t.toSettings}</a>`}</li>
      <li class=${pending ? "is-done" : ""}>${pending ? html`${icon("check")}${t.asked}` : t.ask}
        ${m.access_url ? html`<a href=${m.access_url} target="_blank" rel="noopener noreferrer">${t.askLink}${icon("out")}</a>` : nothing}</li>
      <li>${m.gated === "auto" ? t.auto : t.manual} <button type="button" class="button small" @click=${again}>${t.look}</button></li>
    </ol>
  </div>`;
}
