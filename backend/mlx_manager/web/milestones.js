// What a person wants to hear of without looking: in the title, in the icon, and spoken. Milestones, never ticks.

import { state } from "./store.js";
import { texts } from "./texts.js";

const RUNNING = new Set(["starting", "downloading", "verifying", "queued"]);
const WAITING = new Set(["stalled", "waiting_for_hub", "retrying", "rate_limited", "waiting_for_lock"]);

const said = [];
let speaking = null;

// Spoken by screen readers, one after the other: two at once would drop the first.
export function tell(what, snapshot) {
  const text = texts.milestone[what]?.(snapshot);
  if (!text) return;
  said.push(text);
  speaking ??= setTimeout(speak, 100);
}

function speak() {
  document.getElementById("polite").textContent = said.splice(0).join(" ");
  speaking = null;
}

export function announce(text) {
  said.push(text);
  speaking ??= setTimeout(speak, 100);
}

// What all downloads that run are worth together.
export function totals() {
  const running = [...state.downloads.values()].filter((one) => RUNNING.has(one.status));
  let [done, total, speed, unknown, moving] = [0, 0, 0, 0, 0];
  for (const one of running) {
    speed += one.speed_bps;
    if (one.total_bytes > 0) {
      done += Math.min(one.downloaded_bytes, one.total_bytes);
      total += one.total_bytes;
    } else {
      unknown += 1;
    }
    if (one.status !== "queued" && !WAITING.has(one.phase)) moving += 1;
  }
  const percent = total > 0 ? Math.min(99, Math.floor((100 * done) / total)) : 0;
  return { running: running.length, done, total, left: total - done, speed, unknown, moving, percent };
}

let title = "";
let icon = "";

export function showInTab(heading) {
  const all = totals();
  const gone = state.link.server === "gone";
  const words = gone ? texts.title.gone : all.running === 0 ? "" : texts.title.running(all);
  const next = [words, heading, texts.app].filter(Boolean).join(" · ");
  if (next !== title) document.title = title = next;

  const mood = gone ? "lost" : all.running === 0 ? "idle" : all.moving > 0 ? "active" : "waiting";
  const step = all.running === 0 || gone ? 100 : Math.floor(all.percent / 5) * 5;
  const href = `/favicon.svg?mood=${mood}&progress=${step}`;
  if (href !== icon) {
    icon = href;
    document.querySelector("link[rel=icon]").href = href;
  }
}

// Fetched while the server is there, for when it is not.
export function keepLostIcon() {
  new Image().src = "/favicon.svg?mood=lost&progress=100";
}
