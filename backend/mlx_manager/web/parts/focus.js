// The focus stays where a person left it, though what they pressed has become something else: Pause becomes Resume, a row
// that is done moves to another list.

export function keepingFocus(render) {
  const before = document.activeElement;
  const key = before?.closest("[data-keep]")?.dataset.keep;
  const what = before?.dataset.do;
  render();
  if (key === undefined || document.activeElement === before) return;
  const place = document.querySelector(`[data-keep="${CSS.escape(key)}"]`);
  const same = what === undefined ? null : place?.querySelector(`[data-do="${what}"]`);
  (same ?? place?.querySelector("[data-do]") ?? place?.querySelector("a, button"))?.focus({ preventScroll: true });
}
