// Which view the address names. Links are plain links; a click on one of ours changes the view without a reload.

import { changed, state } from "./store.js";

const VIEWS = new Set(["discover", "downloads", "library", "settings"]);
const entered = new Set();

export function onEnter(listener) {
  entered.add(listener);
}

function read() {
  const parts = location.pathname.split("/").filter(Boolean);
  const query = new URLSearchParams(location.search);
  if (parts[0] === "models" && parts.length === 3) {
    try {
      return { view: "model", model: parts.slice(1).map(decodeURIComponent).join("/"), query };
    } catch {
      return { view: "discover", query };
    }
  }
  return { view: VIEWS.has(parts[0]) ? parts[0] : "discover", query };
}

export function start() {
  addEventListener("popstate", () => enter(false));
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || event.defaultPrevented || link.target || link.origin !== location.origin) return;
    if (!link.hasAttribute("data-view")) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  state.route = read();
}

export function go(href) {
  if (href !== location.pathname + location.search) history.pushState(null, "", href);
  enter(true);
}

// The same view with another query: typing in the search is no journey, so Back leaves the view.
export function replaceQuery(query) {
  const text = query.toString();
  history.replaceState(null, "", text ? `${location.pathname}?${text}` : location.pathname);
  state.route = { ...state.route, query };
  changed();
}

function enter(fresh) {
  state.route = read();
  for (const listener of entered) listener(state.route);
  changed();
  if (!fresh) return;
  scrollTo(0, 0);
  // A reader hears where it is, and Tab goes on from there.
  requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector("main h1")?.focus({ preventScroll: true })));
}
