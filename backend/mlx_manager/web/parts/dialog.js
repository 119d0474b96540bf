// The one dialog that may be open. The browser's own: it keeps the focus inside, Escape closes it, and the focus goes
// back to where it was.

import { changed, state } from "../store.js";
import { texts } from "../texts.js";
import { html, nothing } from "./html.js";

// `body` is a function, so that what it shows is as new as the page.
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
