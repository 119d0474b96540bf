// Line icons, drawn for this page on a grid of 20. They never stand alone: a word or a label is beside each.

import { svg, html } from "./html.js";

const paths = {
  discover: svg`<circle cx="9" cy="9" r="5.5"/><path d="m13.2 13.2 4 4"/>`,
  downloads: svg`<path d="M10 3v9m-3.6-3.4L10 12.2l3.6-3.6"/><path d="M3.5 13.5v2a1.5 1.5 0 0 0 1.5 1.5h10a1.5 1.5 0 0 0 1.5-1.5v-2"/>`,
  library: svg`<path d="m10 3 7 3.5-7 3.5-7-3.5z"/><path d="m3.5 10 6.5 3.3L16.5 10M3.5 13.4l6.5 3.3 6.5-3.3"/>`,
  settings: svg`<path d="M3 6h7m4 0h3M3 14h3m4 0h7"/><circle cx="12" cy="6" r="2"/><circle cx="8" cy="14" r="2"/>`,
  pause: svg`<path d="M7.2 4.5v11M12.8 4.5v11"/>`,
  resume: svg`<path d="M6.5 4.2v11.6L15.5 10z"/>`,
  cancel: svg`<path d="m5.5 5.5 9 9m0-9-9 9"/>`,
  retry: svg`<path d="M15.8 8A6.2 6.2 0 1 0 16 11.8"/><path d="M16.2 4v4h-4"/>`,
  undo: svg`<path d="M7.5 5 4 8.5 7.5 12"/><path d="M4.5 8.5h7a4 4 0 0 1 0 8H9"/>`,
  more: svg`<path d="m6 8 4 4 4-4"/>`,
  check: svg`<path d="m4.5 10.5 3.7 3.7 7.3-8"/>`,
  warn: svg`<path d="M10 3.5 17.5 16.5h-15zM10 8.5v3.7M10 14.3v.1"/>`,
  lock: svg`<rect x="5" y="9" width="10" height="7.5" rx="1.5"/><path d="M7 9V6.5a3 3 0 0 1 6 0V9"/>`,
  trash: svg`<path d="M4 6h12M8 6V4h4v2M5.5 6l.8 10.5h7.4L14.5 6"/>`,
  copy: svg`<rect x="7" y="7" width="9" height="9.5" rx="1.5"/><path d="M13 7V5a1.5 1.5 0 0 0-1.5-1.5h-6A1.5 1.5 0 0 0 4 5v7a1.5 1.5 0 0 0 1.5 1.5H7"/>`,
  out: svg`<path d="M8 4.5H5A1.5 1.5 0 0 0 3.5 6v9A1.5 1.5 0 0 0 5 16.5h9a1.5 1.5 0 0 0 1.5-1.5v-3M11.5 3.5h5v5M16 4 9.5 10.5"/>`,
};

export const icon = (name) =>
  html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">${paths[name]}</svg>`;

// The mark, layers that fill up, is in index.html: there it is seen before any script has come.
export const mark = () => html`<svg class="mark" aria-hidden="true" focusable="false"><use href="#mark" /></svg>`;
