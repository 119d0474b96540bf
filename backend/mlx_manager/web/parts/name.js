// A model's name. It comes from a hub, so it may be anything: it is text, and it keeps its direction to itself.

import { modelPath } from "../api.js";
import { splitId } from "../format.js";
import { html, nothing } from "./html.js";

export function name(modelId, { link = true } = {}) {
  const [org, model] = splitId(modelId);
  const words = html`${org ? html`<span class="org"><bdi>${org}</bdi>/</span><wbr>` : nothing}<bdi class="model">${model}</bdi>`;
  // One of the Hub's first years has no ORG, and no view of its own.
  return link && org ? html`<a class="name" data-view href="/models/${modelPath(modelId)}">${words}</a>` : html`<span class="name">${words}</span>`;
}
