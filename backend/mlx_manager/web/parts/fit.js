// Will it run here? The server's verdict, in a word and in figures.

import * as f from "../format.js";
import { texts } from "../texts.js";
import { html, nothing, svg } from "./html.js";

const t = texts.fit;
const KIND = { fits: "good", tight: "warn", no: "bad", unknown: "off" };

export const fitWord = (fit) =>
  fit ? html`<span class="state state-${KIND[fit.verdict]}" title=${fit.why}><i></i>${t.verdict[fit.verdict]}</span>` : nothing;

// What it takes, piece by piece, against what there is.
export function fitFigures(fit) {
  if (!fit || fit.needs_bytes === null) return fit ? html`<p class="muted">${fit.why}</p>` : nothing;
  const most = Math.max(fit.available_bytes, fit.needs_bytes);
  const part = (bytes) => (100 * (bytes ?? 0)) / most;
  const [weights, kv] = [part(fit.weights_bytes), part(fit.kv_bytes)];
  const parts = [
    ["weights", t.weights, fit.weights_bytes],
    ["kv", t.kv(f.tokens(fit.context)), fit.kv_bytes],
    ["work", t.work, fit.work_bytes],
  ].filter(([, , bytes]) => bytes !== null);
  return html`<div class="fit">
    <p class="fit-why">${fit.why}${fit.is_estimate ? html` <em>${t.estimate}</em>` : nothing}</p>
    <div class="fit-bar"><svg width="100%" height="100%" role="img" aria-label=${t.bar(f.bytes(fit.needs_bytes), f.bytes(fit.available_bytes))}>
      <rect class="fit-weights" height="100%" width="${weights}%" />
      <rect class="fit-kv" height="100%" x="${weights}%" width="${kv}%" />
      <rect class="fit-work" height="100%" x="${weights + kv}%" width="${part(fit.work_bytes)}%" />
      ${fit.needs_bytes > fit.available_bytes ? svg`<rect class="fit-limit" height="100%" x="${part(fit.available_bytes)}%" width="2" />` : nothing}
    </svg></div>
    <dl class="fit-parts">
      ${parts.map(([kind, label, bytes]) => html`<div><dt><i class="key key-${kind}"></i>${label}</dt><dd>${f.bytes(bytes)}</dd></div>`)}
      <div><dt>${t.together}</dt><dd>${t.of(f.bytes(fit.needs_bytes), f.bytes(fit.available_bytes))}</dd></div>
      ${fit.max_context ? html`<div><dt>${t.longest}</dt><dd>${t.tokens(f.tokens(fit.max_context))}</dd></div>` : nothing}
    </dl>
  </div>`;
}
