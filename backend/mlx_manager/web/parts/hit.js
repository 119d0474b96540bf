// A model as search tells it: the facts that decide, and one button.

import * as f from "../format.js";
import { texts } from "../texts.js";
import { fitWord } from "./fit.js";
import { getButton } from "./get.js";
import { html, nothing } from "./html.js";
import { icon } from "./icons.js";
import { name } from "./pieces.js";

const t = texts.hit;

export function hit(m) {
  const size = m.size_bytes === null ? null : `${m.size_is_estimate ? `${t.about} ` : ""}${f.bytes(m.size_bytes)}`;
  const facts = [
    m.params === null ? null : t.parameters(f.parameters(m.params)),
    m.quant?.label ?? null,
    size,
    ...m.capabilities.map((one) => texts.capability[one] ?? one),
  ].filter((one) => one !== null);
  return html`<article class="hit" data-keep="hit ${m.model_id}" aria-label=${m.model_id}>
    <div class="hit-what">
      <h2>${name(m.model_id)}</h2>
      <p class="hit-facts">${facts.map((one) => html`<span>${one}</span>`)}</p>
    </div>
    <div class="hit-fit">${fitWord(m.fit)}${m.gated ? html`<span class="gated" title=${t.gatedWhy}>${icon("lock")}${t.gated}</span>` : nothing}</div>
    <p class="hit-said">
      ${m.downloads === null ? nothing : html`<span title=${f.exact(m.downloads)}>${t.downloads(f.count(m.downloads))}</span>`}
      ${m.updated_at ? html`<span>${t.updated(f.ago((Date.now() - Date.parse(m.updated_at)) / 1000))}</span>` : nothing}
    </p>
    <div class="hit-get">${getButton(m.model_id, m.local, { gated: Boolean(m.gated) })}</div>
  </article>`;
}
