// The page: what is around the views, and the one render.

import { clock as timeOf } from "./format.js";
import { ACTIVE, start as startNews } from "./live.js";
import { keepLostIcon, showInTab } from "./milestones.js";
import { loadCaps } from "./moves.js";
import { html, keyed, nothing, render } from "./parts/html.js";
import { icon, mark } from "./parts/icons.js";
import { dialog, notices, ticked } from "./parts/pieces.js";
import { onEnter, start as startRouter } from "./router.js";
import { changed, onChange, state } from "./store.js";
import { texts } from "./texts.js";
import { discover, enterDiscover } from "./views/discover.js";
import { downloads } from "./views/downloads.js";
import { enterLibrary, library } from "./views/library.js";
import { enterModel, model } from "./views/model.js";
import { enterSettings, settings } from "./views/settings.js";

const VIEWS = {
  discover: { show: discover, enter: enterDiscover },
  downloads: { show: downloads, enter: () => loadCaps().catch(quiet) },
  library: { show: library, enter: enterLibrary },
  settings: { show: settings, enter: enterSettings },
  model: { show: model, enter: enterModel },
};

// That the server is gone is said by the banner; a view asks again when it is back.
function quiet(error) {
  if (error.code !== "unreachable") throw error;
}

function page() {
  const gone = state.link.server === "gone";
  const { view } = state.route;
  return html`<a class="skip" href="#main">${texts.nav.skip}</a>
    <div class="frame ${gone ? "is-gone" : ""}">
      <header class="side">
        <a class="brand" data-view href="/discover">${mark()}<span>${texts.app}</span></a>
        <nav aria-label=${texts.nav.label}>
          <ul>${["discover", "downloads", "library", "settings"].map(entry)}</ul>
        </nav>
        ${connection()}
      </header>
      <main id="main" tabindex="-1">
        <div aria-live="polite">${banner()}</div>
        ${keyed(view, html`<div class="view view-${view}" ?inert=${gone && state.link.newsAt === null}>${VIEWS[view].show()}</div>`)}
      </main>
    </div>
    ${notices()} ${dialog()}`;
}

function entry(view) {
  const here = state.route.view === view || (view === "discover" && state.route.view === "model");
  const unfinished = view === "downloads" ? [...state.downloads.values()].filter((one) => ACTIVE.has(one.status) || one.status === "queued").length : 0;
  return html`<li><a data-view href="/${view}" aria-current=${here ? "page" : nothing}>
    ${icon(view)}<span>${texts.nav[view]}</span>
    ${unfinished > 0 ? html`<span class="tally" aria-hidden="true">${unfinished}</span><span class="unseen">, ${texts.nav.running(unfinished)}</span>` : nothing}
  </a></li>`;
}

function connection() {
  const { server, stream } = state.link;
  const [kind, word] =
    server === "gone" ? ["bad", texts.link.goneShort] :
    stream === "open" ? ["good", texts.link.live] :
    stream === "connecting" ? ["off", texts.link.connecting] : ["warn", texts.link.polling];
  return html`<p class="connection connection-${kind}"><i></i><span>${word}</span></p>`;
}

function banner() {
  const { server, stream, newsAt, updated, locked } = state.link;
  const t = texts.link;
  if (locked) return reloading(t.lockedTitle, t.locked);
  if (server === "gone") {
    const said = newsAt === null ? t.goneNever : t.gone(timeOf(newsAt));
    return html`<div class="banner banner-bad">${icon("warn")}<p><strong>${t.goneTitle}</strong> ${ticked(said)}</p></div>`;
  }
  if (stream === "lost" || stream === "silent") {
    return html`<div class="banner banner-warn">${icon("warn")}<p><strong>${t.lostTitle}</strong> ${t.lost}</p></div>`;
  }
  return updated ? reloading(t.updatedTitle, t.updated) : nothing;
}

const reloading = (title, text) => html`<div class="banner">${icon("retry")}<p><strong>${title}</strong> ${text}</p>
  <button type="button" class="button small" @click=${() => location.reload()}>${texts.link.reload}</button></div>`;

// The focus stays where a person left it, though what they pressed has become something else: Pause becomes Resume, a row
// that is done moves to another list.
function keepingFocus(render) {
  const before = document.activeElement;
  const key = before?.closest("[data-keep]")?.dataset.keep;
  const what = before?.dataset.do;
  render();
  if (key === undefined || document.activeElement === before) return;
  const place = document.querySelector(`[data-keep="${CSS.escape(key)}"]`);
  const same = what === undefined ? null : place?.querySelector(`[data-do="${what}"]`);
  (same ?? place?.querySelector("[data-do]") ?? place?.querySelector("a, button"))?.focus({ preventScroll: true });
}

const root = document.getElementById("app");
let wasGone = false;

function show() {
  const gone = state.link.server === "gone";
  document.documentElement.classList.toggle("gone", gone);
  if (wasGone && !gone) enter(state.route);
  wasGone = gone;
  keepingFocus(() => render(page(), root));
  showInTab(state.route.view === "model" ? state.route.model : texts.nav[state.route.view]);
}

const enter = (route) => VIEWS[route.view].enter(route);

onChange(show);
startRouter();
onEnter(enter);
root.replaceChildren();
show();
startNews();
enter(state.route);
keepLostIcon();
// What is counted in seconds: the ages and the countdowns.
setInterval(() => {
  if (!document.hidden && state.link.server !== "gone") changed();
}, 1000);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.metaKey && !event.ctrlKey && !event.altKey && !state.dialog) {
    const field = document.querySelector("main input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  }
});
