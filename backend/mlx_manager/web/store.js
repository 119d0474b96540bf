// All that the page knows. Views read it, the rest of the page writes it; whoever writes says so, and one render follows.

export const state = {
  route: { view: "discover", query: new URLSearchParams() },
  // stream: connecting, open, lost, silent. server: unknown, up, gone. newsAt: when anything was heard, in this
  // browser's milliseconds.
  link: { stream: "connecting", server: "unknown", newsAt: null, updated: false, locked: false },
  downloads: new Map(), // task_id → snapshot, as the server told it
  loaded: false, // the list of downloads was told at least once
  older: null, // the cursor for the downloads before these
  files: new Map(), // task_id → the files of a row that is open
  curves: new Map(), // task_id → bytes per second for each step of seconds, the newest last
  moving: new Map(), // task_id → the move that was asked for and is not answered
  undo: new Map(), // task_id → when the cancel is sent, in this browser's milliseconds
  open: new Set(), // what is folded out
  notices: [], // what went wrong with something that a person asked for
  system: null,
  limits: null,
  caps: new Map(), // task_id → bytes per second or null, of a row that is open
  local: null,
  here: null, // model_id → complete or partial
  machine: null,
  account: null,
  starters: null,
  search: null,
  model: null,
  dialog: null,
};

let listener = () => {};
let waiting = false;

export function onChange(render) {
  listener = render;
}

// Many changes, one render: with the next frame, or soon where nobody looks (a hidden tab has no frames).
export function changed() {
  if (waiting) return;
  waiting = true;
  const go = () => {
    waiting = false;
    listener();
  };
  if (document.hidden) setTimeout(go, 200);
  else requestAnimationFrame(go);
}

let number = 0;

export function notice(text, advice = "", kind = "trouble") {
  const id = ++number;
  state.notices = [...state.notices.filter((one) => one.text !== text), { id, text, advice, kind }].slice(-3);
  changed();
  return id;
}

export function dismiss(id) {
  state.notices = state.notices.filter((one) => one.id !== id);
  changed();
}
