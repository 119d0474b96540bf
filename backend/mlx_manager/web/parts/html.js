// The one place that knows the template library.

export { html, nothing, render, svg } from "../vendor/lit-html-3.3.3/lit-html.js";
export { repeat } from "../vendor/lit-html-3.3.3/directives/repeat.js";
export { live } from "../vendor/lit-html-3.3.3/directives/live.js";
export { keyed } from "../vendor/lit-html-3.3.3/directives/keyed.js";
