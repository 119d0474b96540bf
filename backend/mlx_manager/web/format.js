// Figures as people say them; the same words as on the command line.

export function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return unit === "B" ? `${Math.round(count)} B` : `${count.toFixed(1)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(2)} TB`;
}

// 251.0 of 600.0 MB: the unit once where it is the same.
export function bytesOf(done, total) {
  const [whole, part] = [bytes(total), bytes(done)];
  const unit = whole.split(" ")[1];
  return part.endsWith(` ${unit}`) ? `${part.split(" ")[0]} of ${whole}` : `${part} of ${whole}`;
}

export const rate = (bps) => `${bytes(bps)}/s`;

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const percent = (value) => `${value === 100 || value === 0 ? value : value.toFixed(1)} %`;

const plainNumber = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const count = (number) => plainNumber.format(number);

const whole = new Intl.NumberFormat("en");
export const exact = (number) => whole.format(number);

// 135M, 0.6B, 30B: as models are named.
export function parameters(number) {
  if (number >= 1e12) return `${trimmed(number / 1e12)}T`;
  if (number >= 1e9) return `${trimmed(number / 1e9)}B`;
  if (number >= 1e6) return `${trimmed(number / 1e6)}M`;
  return exact(number);
}

const trimmed = (value) => (value >= 10 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ""));

// 4096 → 4k, 131072 → 128k tokens.
export const tokens = (number) => (number >= 1024 && number % 1024 === 0 ? `${number / 1024}k` : exact(number));

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const clock = (at) => time.format(new Date(at));

// How long ago, in the one unit that matters.
export function ago(seconds) {
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  const days = Math.round(seconds / 86400);
  if (days < 60) return days === 1 ? "yesterday" : `${days} days ago`;
  return days < 700 ? `${Math.round(days / 30.4)} months ago` : `${Math.round(days / 365)} years ago`;
}

export const plural = (number, noun, many = `${noun}s`) => `${exact(number)} ${number === 1 ? noun : many}`;

export function splitId(modelId) {
  const at = modelId.indexOf("/");
  return at < 0 ? ["", modelId] : [modelId.slice(0, at), modelId.slice(at + 1)];
}
