// The first minute: nothing is here yet, so three models that run on this machine, with one button each.

import * as f from "../format.js";
import { fitWord } from "../parts/fit.js";
import { getButton } from "../parts/get.js";
import { html, nothing } from "../parts/html.js";
import { name } from "../parts/pieces.js";
import { state } from "../store.js";
import { texts } from "../texts.js";

const t = texts.welcome;

export function welcome() {
  const models = state.starters?.value?.models ?? [];
  if (models.length === 0) return nothing;
  return html`<section class="welcome" aria-label=${t.label}>
    <ul class="starters">${models.map((model, i) => html`<li class="starter" data-keep="starter ${model.model_id}">
      <p class="starter-kind">${t.kinds[Math.min(i, t.kinds.length - 1)]}</p>
      <h2>${name(model.model_id)}</h2>
      <p class="hit-facts">
        ${model.params === null ? nothing : html`<span>${texts.hit.parameters(f.parameters(model.params))}</span>`}
        ${model.quant ? html`<span>${model.quant.label}</span>` : nothing}
      </p>
      <p>${fitWord(model.fit)}</p>
      ${getButton(model.model_id, model.local, { big: true, size: model.size_bytes, gated: Boolean(model.gated) })}
    </li>`)}</ul>
    ${state.machine?.value ? html`<p class="muted">${state.machine.value.text}</p>` : nothing}
  </section>`;
}
