// The server's clock, so that a countdown is right on a machine whose own clock is not.

let ahead = 0;
let frozen = null;

// The Date header of an answer: whole seconds, so a difference below two says nothing.
export function saw(header, asked, answered) {
  const told = Date.parse(header ?? "");
  if (Number.isNaN(told)) return;
  const difference = told + 500 - (asked + answered) / 2;
  ahead = Math.abs(difference) < 2000 ? 0 : difference;
}

// Milliseconds since 1970 on the server. While the server is gone time stands still: nothing is guessed.
export function now() {
  return frozen ?? Date.now() + ahead;
}

export function freeze(at) {
  frozen = at === null ? null : at + ahead;
}

// Seconds since a moment that the server told; negative before it.
export function since(moment) {
  return moment === null ? null : (now() - Date.parse(moment)) / 1000;
}
