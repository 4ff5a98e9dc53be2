/** Scales and ticks of charts. */

/** Returns a linear scale from a domain [from, to] to a range of pixels [first, last]. */
export function linear([from, to], [first, last]) {
  const span = to - from || 1;
  return (value) => first + ((value - from) / span) * (last - first);
}

/** Returns about `count` round numbers within [from, to]. */
export function ticks(from, to, count, whole = false) {
  const span = to - from;
  if (!(span > 0) || !Number.isFinite(span)) return [from];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i += 1) found.push(i * step + 0); // never -0
  return found;
}

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/** Returns about `count` round times of day within [from, to], all in seconds. */
export function clockTicks(from, to, count) {
  const step = SECONDS.find((each) => each >= (to - from) / count) ?? SECONDS.at(-1);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}

/** Returns the range of values with a margin, ignoring NaN and infinities. floor: a value that is always inside. */
export function extent(values, floor = null) {
  let low = floor ?? Infinity;
  let high = floor ?? -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
  return [floor === null ? low - margin : low, high + margin];
}
