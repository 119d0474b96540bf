// A model's card. Whoever wrote it may be anybody: the server has taken out what could act, and here it is shown in a
// frame of its own that runs no script, cannot reach over its edge, and inherits the page's policy.

import { html } from "./html.js";

const BUILD = document.querySelector("meta[name=build]").content;
const policy = globalThis.trustedTypes?.createPolicy("card", { createHTML: (text) => text });

let shown = { text: null, made: null };

function documentOf(text) {
  const theme = document.documentElement.dataset.theme ?? "";
  const key = `${theme}\0${text}`;
  if (shown.text !== key) {
    const whole = `<!doctype html><html lang="en" data-theme="${theme}"><head><meta charset="utf-8"><base target="_blank">
      <link rel="stylesheet" href="/page/${BUILD}/styles/card.css"></head><body>${text}</body></html>`;
    shown = { text: key, made: policy ? policy.createHTML(whole) : whole };
  }
  return shown.made;
}

// As high as what it holds, so that there is one scrollbar.
function fitHeight(event) {
  const frame = event.target;
  const inner = frame.contentDocument?.documentElement;
  if (!inner) return;
  const measure = () => {
    const height = `${Math.ceil(inner.getBoundingClientRect().height)}px`;
    if (frame.style.height !== height) frame.style.height = height;
  };
  measure();
  new ResizeObserver(measure).observe(inner);
}

export const card = (text, title) => html`<iframe class="card" title=${title}
  sandbox="allow-same-origin allow-popups allow-popups-to-escape-sandbox" referrerpolicy="no-referrer"
  .srcdoc=${documentOf(text)} @load=${fitHeight}></iframe>`;
