// The bar of a download: what was here before this run, what came in it, what is to come.

import { texts } from "../texts.js";
import { html, nothing, svg } from "./html.js";

// Widths are attributes of SVG: the policy forbids styles in markup.
export function bar(download) {
  const { total_bytes: total, downloaded_bytes: done, reused_bytes: reused, status } = download;
  const complete = status === "completed";
  if (total <= 0 && !complete) {
    const busy = status === "starting" || status === "downloading";
    return html`<div class="bar ${busy ? "bar-unknown" : ""}" role="progressbar" aria-label=${texts.downloads.barLabel(download.model_id)}
      aria-valuetext=${texts.downloads.sizeUnknown}></div>`;
  }
  const part = (bytes) => Math.max(0, Math.min(100, total > 0 ? (100 * bytes) / total : 100));
  const here = complete ? 0 : part(Math.min(reused, done));
  const all = complete ? 100 : part(done);
  return html`<div class="bar" role="progressbar" aria-label=${texts.downloads.barLabel(download.model_id)}
      aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.floor(download.progress)}
      aria-valuetext=${texts.downloads.barText(download)}>
    <svg width="100%" height="100%" aria-hidden="true" focusable="false">
      <rect class="bar-came" height="100%" width="${all}%" />
      ${here > 0 ? svg`<rect class="bar-here" height="100%" width="${here}%" />` : nothing}
    </svg>
  </div>`;
}

// A thin one, for a file or a share; told in words beside it.
export const thinBar = (part) => html`<span class="thin" aria-hidden="true"><svg width="100%" height="100%" focusable="false">
  <rect class="bar-came" height="100%" width="${Math.max(0, Math.min(1, part)) * 100}%" /></svg></span>`;

const WIDTH = 90;
const HEIGHT = 22;

// The rate over the last minute and a half, the newest at the right edge.
export function curve(told) {
  const { points, step: seconds } = told ?? { points: [] };
  if (points.length < 3) return html`<span class="curve"></span>`;
  const top = Math.max(...points, 1);
  const step = WIDTH / 44;
  const x = (i) => (WIDTH - (points.length - 1 - i) * step).toFixed(1);
  const y = (value) => (HEIGHT - 1.5 - (value / top) * (HEIGHT - 3)).toFixed(1);
  const line = points.map((value, i) => `${x(i)},${y(value)}`).join(" ");
  return html`<svg class="curve" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
      aria-label=${texts.downloads.curve(points.length * seconds, top)}>
    <polygon class="curve-area" points="${x(0)},${HEIGHT} ${line} ${WIDTH},${HEIGHT}" />
    <polyline class="curve-line" points=${line} />
  </svg>`;
}
