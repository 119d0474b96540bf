// Small things that many views use.

import { modelPath } from "../api.js";
import { splitId } from "../format.js";
import { texts } from "../texts.js";
import { changed, dismiss, notice, state } from "../store.js";
import { html, nothing } from "./html.js";
import { icon } from "./icons.js";

// What went wrong, in the server's words, with the next step.
export const trouble = (error, again) => html`<div class="callout callout-bad" role="alert">
  ${icon("warn")}
  <div><p><strong>${error.message ?? error}</strong></p>${error.advice ? html`<p>${ticked(error.advice)}</p>` : nothing}</div>
  ${again ? html`<button type="button" class="button" @click=${again}>${texts.tryAgain}</button>` : nothing}
</div>`;

// `code` between backticks, as in the server's advice.
export const ticked = (text) => text.split("`").map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));

export const loading = () => html`<p class="loading">${texts.loading}</p>`;

export const notices = () => html`<div class="notices">
  ${state.notices.map(
    (one) => html`<div class="notice notice-${one.kind}" role=${one.kind === "trouble" ? "alert" : "status"}>
      <div><p><strong>${one.text}</strong></p>${one.advice ? html`<p>${ticked(one.advice)}</p>` : nothing}</div>
      <button type="button" class="quiet" @click=${() => dismiss(one.id)}>${icon("cancel")}<span class="unseen">${texts.dismiss}</span></button>
    </div>`,
  )}
</div>`;

// Something that a person asked for went wrong: say so, with the next step. A fault of ours goes on to the console.
export function told(error) {
  if (error.status === undefined) throw error;
  notice(error.message, error.advice);
}

const copiedAt = new Map();

// A line to paste, and a button that copies it.
export function paste(label, text) {
  const done = copiedAt.get(text) > Date.now() - 2000;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      notice(texts.notCopied, "", "note");
      return;
    }
    copiedAt.set(text, Date.now());
    changed();
    setTimeout(changed, 2100);
  };
  return html`<div class="paste">
    <span class="paste-label">${label}</span>
    <pre tabindex="0" aria-label=${label}><code>${text}</code></pre>
    <button type="button" class="button small" @click=${copy}>${icon(done ? "check" : "copy")}${done ? texts.copied : texts.copy}<span class="unseen"> ${label}</span></button>
  </div>`;
}

export const foldId = (key) => `fold-${encodeURIComponent(key)}`;

// Opens and closes what is folded away under `key`; what appears has the id `foldId(key)`.
export function unfold(key, label, about) {
  const open = state.open.has(key);
  const toggle = () => {
    if (open) state.open.delete(key);
    else state.open.add(key);
    changed();
  };
  return html`<button type="button" class="unfold" data-do="unfold" title=${label} aria-expanded=${open ? "true" : "false"} aria-controls=${open ? foldId(key) : nothing} @click=${toggle}>
    ${icon("more")}<span class="unseen">${label}: ${about}</span></button>`;
}

// A model's name. It comes from a hub, so it may be anything: it is text, and it keeps its direction to itself.
export function name(modelId, { link = true } = {}) {
  const [org, model] = splitId(modelId);
  const words = html`${org ? html`<span class="org"><bdi>${org}</bdi>/</span><wbr>` : nothing}<bdi class="model">${model}</bdi>`;
  // One of the Hub's first years has no ORG, and no view of its own.
  return link && org ? html`<a class="name" data-view href="/models/${modelPath(modelId)}">${words}</a>` : html`<span class="name">${words}</span>`;
}

// The one dialog that may be open. The browser's own: it keeps the focus inside, Escape closes it, and the focus goes
// back to where it was. `body` is a function, so that what it shows is as new as the page.
export function openDialog(heading, body) {
  state.dialog = { heading, body, from: document.activeElement };
  changed();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const element = document.getElementById("dialog");
    if (element && !element.open) element.showModal();
  }));
}

export function closeDialog() {
  document.getElementById("dialog")?.close();
}

function closed() {
  const from = state.dialog?.from;
  state.dialog = null;
  changed();
  requestAnimationFrame(() => {
    if (from?.isConnected) from.focus();
    else document.querySelector("main h1")?.focus();
  });
}

export function dialog() {
  const it = state.dialog;
  if (!it) return nothing;
  return html`<dialog id="dialog" aria-labelledby="dialog-heading" @close=${closed}>
    <h2 id="dialog-heading">${it.heading}</h2>
    ${it.body()}
  </dialog>`;
}

export const dialogButtons = (action) => html`<div class="dialog-buttons">
  <button type="button" class="button" @click=${closeDialog} autofocus>${texts.keep}</button>${action}
</div>`;
